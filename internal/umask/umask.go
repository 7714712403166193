// Package umask keeps the file mode creation mask that a process was started with,
// while it works under 022. Files of images must have their modes whatever the user's
// mask is; what a build leaves on the host follows it (umask(2)).
package umask

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// variable holds the mask as octal digits. It is set by the process for itself, as the
// mode of its namespaces is.
const variable = "_SHALE_UMASK"

// working is the mask under which a process works.
const working = 0o022

// Set makes the mask of the process 022 and remembers the one before.
func Set() error {
	return os.Setenv(variable, strconv.FormatUint(uint64(unix.Umask(working)), 8))
}

// Of returns perm without the permissions that the mask of the user takes away.
func Of(perm fs.FileMode) fs.FileMode {
	return perm &^ mask()
}

func mask() fs.FileMode {
	text := os.Getenv(variable)
	if text == "" {
		text = current()
	}
	m, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return working
	}
	return fs.FileMode(m) & fs.ModePerm
}

// current reads the mask of the process, "" before Linux 4.7 (proc(5)): umask(2) tells
// it only by setting another.
func current() string {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "Umask:"); ok {
			return strings.TrimSpace(text)
		}
	}
	return ""
}

// Directories is where MkdirAll makes directories: an *os.Root, or Host.
type Directories interface {
	Stat(name string) (fs.FileInfo, error)
	Mkdir(name string, perm fs.FileMode) error
	Chmod(name string, perm fs.FileMode) error
}

// Host is the file system of the host.
type Host struct{}

// Stat implements Directories.
func (Host) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Mkdir implements Directories.
func (Host) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// Chmod implements Directories.
func (Host) Chmod(name string, perm fs.FileMode) error { return os.Chmod(name, perm) }

// MkdirAll makes a directory and those above it, as far as they are missing, with the
// permissions that the mask of the user leaves of perm.
func MkdirAll(in Directories, name string, perm fs.FileMode) error {
	name = path.Clean(name)
	if _, err := in.Stat(name); err == nil || name == "." || name == "/" {
		return nil
	}
	if err := MkdirAll(in, path.Dir(name), perm); err != nil {
		return err
	}
	perm = Of(perm)
	err := in.Mkdir(name, perm)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	case perm&working != 0:
		return in.Chmod(name, perm)
	}
	return nil
}
