package frontend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sys/unix"
)

// Suffixes of files beside a Dockerfile. The names of such files begin with the name of
// the Dockerfile.
const (
	ignoreSuffix = ".dockerignore"
	policySuffix = ".rego"
)

// defaultNames are the names under which the Dockerfile is looked for in a directory, in
// this order.
var defaultNames = []string{
	dockerui.DefaultDockerfileName,
	strings.ToLower(dockerui.DefaultDockerfileName),
	containerfile,
}

// Names that podman and buildah use for the Dockerfile and its ignore file. A
// Containerfile is used without -f only if docker would find no Dockerfile. A
// .containerignore is used only with a Containerfile.
const (
	containerfile   = "Containerfile"
	containerIgnore = ".containerignore"
)

// findDockerfile looks for the Dockerfile in the context. It resolves symbolic links
// inside the context, because the context may come from an untrusted source.
func (in *Inputs) findDockerfile(dir, shown string) error {
	root, err := OpenDir(dir, nil)
	if err != nil {
		return inputErrorf("open build context: %w", err)
	}
	defer func() { _ = root.Close() }()
	for _, name := range defaultNames {
		data, err := readSmall(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			if isLink(filepath.Join(dir, name)) {
				return inputErrorf("%s in %s is a symbolic link that leads nowhere inside the context; name its target with -f", name, shown)
			}
			continue
		}
		if err != nil {
			return inputErrorf("read Dockerfile in %s: %w", shown, err)
		}
		return in.setDockerfile(name, data, root)
	}
	return inputErrorf("open Dockerfile: no such file or directory in %s; name it with -f", shown)
}

// isContainerfile reports whether a Dockerfile has a name that podman and buildah give
// it, for example Containerfile.dev or web.containerfile.
func isContainerfile(name string) bool {
	return strings.Contains(strings.ToLower(name), strings.ToLower(containerfile))
}

// findContainerIgnore uses .containerignore in the context dir, if it exists, as the
// ignore file of the Containerfile, as podman does.
func (in *Inputs) findContainerIgnore(dir, shown string) error {
	root, err := OpenDir(dir, nil)
	if err != nil {
		return inputErrorf("open build context: %w", err)
	}
	defer func() { _ = root.Close() }()
	data, err := readSmall(root, containerIgnore)
	if errors.Is(err, fs.ErrNotExist) {
		if isLink(filepath.Join(dir, containerIgnore)) {
			return inputErrorf("%s in %s is a symbolic link that leads nowhere inside the context: not followed", containerIgnore, shown)
		}
		return nil
	}
	if err != nil {
		return inputErrorf("read ignore file in %s: %w", shown, err)
	}
	in.files[in.Filename+ignoreSuffix] = data
	return checkPatterns(containerIgnore, data)
}

// readDockerfile reads the file that the user named, which may be anywhere. If the path
// is relative and does not exist, it is also looked for in the context dir, if there is
// one.
func (in *Inputs) readDockerfile(path, dir string) error {
	data, err := readNamed(path)
	if errors.Is(err, fs.ErrNotExist) && filepath.Base(path) == dockerui.DefaultDockerfileName {
		lower := filepath.Join(filepath.Dir(path), strings.ToLower(dockerui.DefaultDockerfileName))
		if found, lerr := readNamed(lower); lerr == nil {
			path, data, err = lower, found, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) && dir != "" && !filepath.IsAbs(path) {
		return in.readInContext(path, dir)
	}
	if err != nil {
		return dockerfileError(path, err)
	}
	root, err := OpenDir(filepath.Dir(path), nil)
	if err != nil {
		return inputErrorf("open the Dockerfile's directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	return in.setDockerfile(filepath.Base(path), data, root)
}

func (in *Inputs) readInContext(path, dir string) error {
	root, err := OpenDir(filepath.Join(dir, filepath.Dir(filepath.Join("/", path))), nil)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return dockerfileError(path, fs.ErrNotExist)
	}
	if err != nil {
		return inputErrorf("open the Dockerfile's directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	name := filepath.Base(path)
	data, err := readSmall(root, name)
	if err != nil {
		return dockerfileError(path, err)
	}
	return in.setDockerfile(name, data, root)
}

func dockerfileError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return inputErrorf("open %s: no such file or directory; -f takes a path relative to the current directory or to the context", path)
	}
	if errors.Is(err, errPipe) {
		return inputErrorf("read Dockerfile: %w; use -f - to read it from standard input", err)
	}
	return inputErrorf("read Dockerfile: %w", err)
}

// setDockerfile stores the Dockerfile and its ignore file from root. The ignore file is
// NAME.dockerignore, or for a Containerfile also NAME.containerignore.
func (in *Inputs) setDockerfile(name string, data []byte, root Root) error {
	in.setFilename(name)
	in.files[name] = data
	if _, err := root.StatFile(name + policySuffix); err == nil {
		in.rego = name + policySuffix
	}
	suffixes := []string{ignoreSuffix}
	if isContainerfile(name) {
		suffixes = append(suffixes, containerIgnore)
	}
	for _, suffix := range suffixes {
		ignore, err := readSmall(root, name+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return inputErrorf("read ignore file: %w", err)
		}
		in.files[name+ignoreSuffix] = ignore
		return checkPatterns(name+suffix, ignore)
	}
	return nil
}

func (in *Inputs) readStdinDockerfile(stdin io.Reader) error {
	if stdin == nil {
		return inputErrorf("the Dockerfile is to be read from standard input, but there is none")
	}
	data, err := io.ReadAll(io.LimitReader(stdin, MaxFile+1))
	if err != nil {
		return inputErrorf("read Dockerfile from standard input: %w", err)
	}
	if len(data) > MaxFile {
		return inputErrorf("the Dockerfile on standard input is larger than %d bytes", MaxFile)
	}
	in.setFilename(dockerui.DefaultDockerfileName)
	in.files[in.Filename] = data
	return nil
}

// checkIgnoreFile returns an error if the ignore file cannot be used. The front end would
// continue without it and add files to the image that must be ignored.
func checkIgnoreFile(dir string) error {
	root, err := OpenDir(dir, nil)
	if err != nil {
		return inputErrorf("open context: %w", err)
	}
	defer func() { _ = root.Close() }()
	data, err := readSmall(root, dockerui.DefaultDockerignoreName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if isLink(filepath.Join(dir, dockerui.DefaultDockerignoreName)) {
			return inputErrorf("%s in %s is a symbolic link that leads nowhere inside the context: not followed", dockerui.DefaultDockerignoreName, dir)
		}
		return nil
	case err != nil:
		return inputErrorf("read ignore file in %s: %w", dir, err)
	}
	return checkPatterns(filepath.Join(dir, dockerui.DefaultDockerignoreName), data)
}

// checkPatterns returns an error with the name of the file if its patterns are invalid.
func checkPatterns(name string, data []byte) error {
	patterns, err := ignorefile.ReadAll(bytes.NewReader(data))
	if err == nil {
		_, err = patternmatcher.New(patterns)
	}
	if err != nil {
		return inputErrorf("read %s: %w", name, err)
	}
	return nil
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// readSmall reads a whole file. It returns an error if the file has more than MaxFile
// bytes.
func readSmall(root Root, name string) ([]byte, error) {
	data, err := root.ReadFile(name, 0, MaxFile+1)
	if err != nil {
		return nil, err
	}
	return limited(name, data)
}

func limited(name string, data []byte) ([]byte, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", name, MaxFile)
	}
	return data, nil
}

// readNamed is like readSmall for a path that the user gave. It follows symbolic links.
func readNamed(path string) ([]byte, error) {
	data, err := readPlain(path, 0, MaxFile+1)
	if err != nil {
		return nil, err
	}
	return limited(path, data)
}

// readPlain reads a range of a regular file. It does not block on a FIFO.
func readPlain(path string, offset, length int64) ([]byte, error) {
	handle, err := os.OpenFile(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	info, err := handle.Stat()
	if err != nil {
		return nil, err
	}
	return readHandle(handle, info, path, offset, length)
}

func sizePlain(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
