package frontend

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/policy"
)

// Inputs are the opened inputs of a build. The caller must close them after the whole
// build, because graphs refer to them.
type Inputs struct {
	// Locals maps the names of local sources (local://NAME) to directories. They are
	// "context" and the named contexts that are directories. The Dockerfile is held in
	// memory and is not part of any graph.
	Locals map[string]string
	// Layouts maps the store ids of OCI layout sources (attribute oci.store) to images.
	Layouts map[string]Layout
	// Archive is the path of the file with the archive from standard input, "" if there
	// is none. Sources refer to it as StdinURL.
	Archive string
	// Filename is the name of the Dockerfile in messages.
	Filename string

	opts     map[string]string
	platform ocispec.Platform
	call     string
	policy   *policy.Policy
	// buildArgs are Options.BuildArgs.
	buildArgs map[string]string
	files     memRoot
	// rego is the name of a policy beside the Dockerfile that docker buildx would
	// evaluate, "" if there is none.
	rego string
	// shown is the path of the Dockerfile as the user knows it.
	shown string
	// remote is true if the Dockerfile is in a context that must be fetched or unpacked.
	remote bool
	tmp    string
	// patience replaces usualPatience in tests.
	patience time.Duration
}

// Layout is an image in an OCI layout directory.
type Layout struct {
	Dir    string
	Digest digest.Digest
}

// Names of local sources, which the front end uses as well.
const (
	localContext    = dockerui.DefaultLocalNameContext
	localDockerfile = dockerui.DefaultLocalNameDockerfile
)

// Open finds and reads the inputs that o names. An error about the inputs is an
// *InputError. The caller must call Close.
func Open(ctx context.Context, o Options) (_ *Inputs, err error) {
	in := &Inputs{
		Locals:   map[string]string{},
		Layouts:  map[string]Layout{},
		files:    memRoot{},
		platform: defaultPlatform(o.BuildPlatform),
		call:     o.Call,

		buildArgs: o.BuildArgs,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.Close())
		}
	}()
	if in.opts, err = attributes(o); err != nil {
		return nil, err
	}
	if o.SourcePolicy != "" {
		if in.policy, err = policy.Read(o.SourcePolicy); err != nil {
			return nil, &InputError{Err: err}
		}
	}
	if err := in.openContext(ctx, o); err != nil {
		return nil, err
	}
	in.shown = shownPath(o, in.Filename)
	if o.IgnoreRego {
		in.rego = ""
	}
	if err := in.openNamed(o.Contexts); err != nil {
		return nil, err
	}
	return in, nil
}

// Close removes the files that Open spooled.
func (in *Inputs) Close() error {
	if in.tmp == "" {
		return nil
	}
	if err := os.RemoveAll(in.tmp); err != nil {
		return fmt.Errorf("remove spooled context: %w", err)
	}
	in.tmp = ""
	return nil
}

var urlPrefix = regexp.MustCompile(`^https?://`)

func (in *Inputs) openContext(ctx context.Context, o Options) error {
	switch {
	case o.Context == "-":
		return in.openStdin(ctx, o)
	case isDir(o.Context):
		return in.openDirectory(ctx, o)
	case isGit(o.Context), urlPrefix.MatchString(o.Context):
		return in.openURL(ctx, o)
	default:
		return contextError(o.Context)
	}
}

func contextError(dir string) error {
	if dir == "" {
		return inputErrorf("no build context given: name a directory (. for this one), a URL, or - for standard input")
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return inputErrorf("build context %q: no such directory; the last argument names the directory that COPY takes files from", dir)
	case err != nil:
		return inputErrorf("build context: %w", err)
	case info.Mode().IsRegular():
		return inputErrorf("build context %q is a file, not a directory; name the Dockerfile with -f, or give an archive on standard input (- < %s)", dir, dir)
	default:
		return inputErrorf("build context %q is not a directory", dir)
	}
}

func (in *Inputs) openDirectory(ctx context.Context, o Options) error {
	dir, err := filepath.Abs(o.Context)
	if err != nil {
		return inputErrorf("build context: %w", err)
	}
	in.Locals[localContext] = dir
	switch {
	case o.Dockerfile == "-":
		err = in.readStdinDockerfile(o.Stdin)
	case o.Dockerfile == "":
		err = in.findDockerfile(dir, o.Context)
	case urlPrefix.MatchString(o.Dockerfile):
		err = in.downloadDockerfile(ctx, o)
	default:
		err = in.readDockerfile(o.Dockerfile, dir)
	}
	if err != nil {
		return err
	}
	if isContainerfile(in.Filename) {
		if _, ok := in.files[in.Filename+ignoreSuffix]; !ok {
			if err := in.findContainerIgnore(dir, o.Context); err != nil {
				return err
			}
		}
	}
	if _, ok := in.files[in.Filename+ignoreSuffix]; ok {
		return nil
	}
	return checkIgnoreFile(dir)
}

// openURL sets the options for a remote context. If -f is an absolute path, a URL or
// standard input, the Dockerfile is read now. Otherwise the front end reads it from the
// context.
func (in *Inputs) openURL(ctx context.Context, o Options) error {
	in.opts["context"] = o.Context
	if o.Subdir != "" {
		in.opts["contextsubdir"] = o.Subdir
	}
	switch {
	case o.Dockerfile == "-":
		in.opts["dockerfilekey"] = localDockerfile
		return in.readStdinDockerfile(o.Stdin)
	case urlPrefix.MatchString(o.Dockerfile):
		in.opts["dockerfilekey"] = localDockerfile
		return in.downloadDockerfile(ctx, o)
	case filepath.IsAbs(o.Dockerfile):
		in.opts["dockerfilekey"] = localDockerfile
		return in.readDockerfile(o.Dockerfile, "")
	default:
		return in.remoteDockerfile(o.Dockerfile, o.Subdir)
	}
}

func (in *Inputs) remoteDockerfile(name, subdir string) error {
	if name == "" {
		name = dockerui.DefaultDockerfileName
	}
	in.remote = true
	in.setFilename(filepath.ToSlash(filepath.Join(subdir, name)))
	return nil
}

func (in *Inputs) setFilename(name string) {
	in.Filename = name
	in.opts["filename"] = name
}

// roots opens the local sources.
func (in *Inputs) roots() (_ map[string]Root, err error) {
	roots := map[string]Root{localDockerfile: in.files}
	defer func() {
		if err == nil {
			return
		}
		for _, root := range roots {
			_ = root.Close()
		}
	}()
	for name, dir := range in.Locals {
		root, err := OpenDir(dir, nil)
		if err != nil {
			return nil, &InputError{Err: fmt.Errorf("open context %q: %w", name, err)}
		}
		roots[name] = root
	}
	if in.Archive != "" {
		roots[StdinURL] = spooled{name: "context", path: in.Archive}
	}
	return roots, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
