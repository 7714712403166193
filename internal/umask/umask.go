// Package umask keeps the file mode creation mask of the user (umask(2)) while the
// process works with mask 022. Files of images must have their own modes whatever the
// mask of the user is. Files that a build creates on the host must follow the mask of the
// user.
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

// variable holds the mask of the user in octal digits. The process sets it for itself,
// like the variable with the mode of its namespaces.
const variable = "_SHALE_UMASK"

// working is the mask with which the process works.
const working = 0o022

// Set sets the mask of the process to 022 and remembers the old mask.
func Set() error {
	return os.Setenv(variable, strconv.FormatUint(uint64(unix.Umask(working)), 8))
}

// Of returns perm without the permissions that the mask of the user removes.
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

// current returns the mask of the process in octal digits, "" before Linux 4.7 (proc(5)).
// It does not use umask(2), which can only return the mask by setting another.
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

// Directories creates directories for MkdirAll. It is an *os.Root or Host.
type Directories interface {
	Stat(name string) (fs.FileInfo, error)
	Mkdir(name string, perm fs.FileMode) error
	Chmod(name string, perm fs.FileMode) error
}

// Host implements Directories for the file system of the host.
type Host struct{}

// Stat implements Directories.
func (Host) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Mkdir implements Directories.
func (Host) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// Chmod implements Directories.
func (Host) Chmod(name string, perm fs.FileMode) error { return os.Chmod(name, perm) }

// MkdirAll creates the directory name and all missing parents. The new directories have
// the permissions perm without those that the mask of the user removes.
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
