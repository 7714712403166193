package frontend

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/llb"
)

// openNamed prepares the values of --build-context. It processes them in sorted order, so
// that each layout gets the same id in each run.
func (in *Inputs) openNamed(contexts map[string]string) error {
	names := make([]string, 0, len(contexts))
	for name := range contexts {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		key, err := contextKey(name)
		if err != nil {
			return err
		}
		if _, ok := in.opts["context:"+key]; ok {
			return inputErrorf("context %q is given twice", key)
		}
		value, err := in.named(key, contexts[name])
		if err != nil {
			return err
		}
		in.opts["context:"+key] = value
	}
	return nil
}

// contextKey returns the form of a name under which the front end looks it up: a familiar
// image name without the tag latest. A suffix "::platform" stays unchanged.
func contextKey(name string) (string, error) {
	ref, platform, hasPlatform := strings.Cut(name, "::")
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", inputErrorf("context name %q: %w", name, err)
	}
	key := strings.TrimSuffix(reference.FamiliarString(named), ":latest")
	if hasPlatform {
		key += "::" + platform
	}
	return key, nil
}

// named returns the front end's option value for a named context.
func (in *Inputs) named(key, value string) (string, error) {
	switch {
	case strings.HasPrefix(value, llb.SchemeImage+"://"):
		return value, checkImageName(key, trimScheme(value, llb.SchemeImage))
	case strings.HasPrefix(value, llb.SchemeLayout+"://"):
		return in.layout(key, trimScheme(value, llb.SchemeLayout))
	case isDir(value):
		return in.directory(key, value)
	case isGit(value), urlPrefix.MatchString(value):
		return value, nil
	case strings.HasPrefix(value, "target:"):
		return "", inputErrorf("context %q: %s is for buildx bake; name a stage of this Dockerfile by its name alone, in FROM or --from", key, value)
	default:
		return "", inputErrorf("context %q: no directory %q; other kinds are docker-image://NAME, oci-layout://DIR, http(s)://… and git repositories", key, value)
	}
}

func checkImageName(key, name string) error {
	if _, err := reference.ParseNormalizedNamed(name); err != nil {
		return inputErrorf("context %q: image %q: %w", key, name, err)
	}
	return nil
}

// directory adds a local source with the name of the context. It changes a name that is
// already used for another source.
func (in *Inputs) directory(key, dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", inputErrorf("context %q: %w", key, err)
	}
	if err := checkIgnoreFile(abs); err != nil {
		return "", err
	}
	name := key
	if name == localContext || name == localDockerfile {
		name = "_" + name
	}
	in.Locals[name] = abs
	return "local:" + name, nil
}

// layout adds the image of DIR, DIR:TAG or DIR@DIGEST and determines its digest.
func (in *Inputs) layout(key, spec string) (string, error) {
	dir, dgst, err := splitLayout(spec)
	if err != nil {
		return "", inputErrorf("context %q: %w", key, err)
	}
	id := "layout" + strconv.Itoa(len(in.Layouts))
	in.Layouts[id] = Layout{Dir: dir, Digest: dgst}
	return llb.SchemeLayout + "://" + id + "@" + dgst.String(), nil
}

func splitLayout(spec string) (dir string, dgst digest.Digest, err error) {
	dir, tag := spec, ""
	if before, after, ok := strings.Cut(spec, "@"); ok {
		if dgst, err = digest.Parse(after); err != nil {
			return "", "", fmt.Errorf("digest %q: %w", after, err)
		}
		dir = before
	}
	// A tag contains no slash. An existing directory may have a colon in its name.
	if i := strings.LastIndex(dir, ":"); i >= 0 && !isDir(dir) && !strings.Contains(dir[i:], "/") {
		dir, tag = dir[:i], dir[i+1:]
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	if !isDir(dir) {
		return "", "", fmt.Errorf("no OCI layout directory %s", dir)
	}
	if dgst != "" {
		return dir, dgst, nil
	}
	dgst, err = layoutDigest(dir, tag)
	return dir, dgst, err
}

// layoutDigest returns the digest of a tag from the index. Without a tag it returns the
// digest of the only image, or of the image tagged latest.
func layoutDigest(dir, tag string) (digest.Digest, error) {
	root, err := OpenDir(dir, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	data, err := readSmall(root, ocispec.ImageIndexFile)
	if err != nil {
		return "", fmt.Errorf("read OCI layout %s: %w", dir, err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return "", fmt.Errorf("decode index of OCI layout %s: %w", dir, err)
	}
	if tag == "" && len(index.Manifests) == 1 {
		return validDigest(index.Manifests[0].Digest)
	}
	if tag == "" {
		tag = "latest"
	}
	for _, m := range index.Manifests {
		if m.Annotations[ocispec.AnnotationRefName] == tag {
			return validDigest(m.Digest)
		}
	}
	return "", fmt.Errorf("no image tagged %q in OCI layout %s", tag, dir)
}

func validDigest(d digest.Digest) (digest.Digest, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q in OCI layout: %w", d, err)
	}
	return d, nil
}

// isGit reports whether the front end reads s as the address of a git repository, even if
// the address is malformed. The caller must check first that s is not a directory.
func isGit(s string) bool {
	_, ok, _ := dfgitutil.ParseGitRef(s)
	return ok
}

// IsGitSSH reports whether s is the address of a git repository over ssh.
func IsGitSSH(s string) bool {
	if isDir(s) || !isGit(s) {
		return false
	}
	u, err := gitutil.ParseURL(s)
	return err == nil && u.Scheme == gitutil.SSHProtocol
}
