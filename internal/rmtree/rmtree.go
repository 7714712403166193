// Package rmtree removes directory trees of any depth.
//
// os.RemoveAll holds a file descriptor for each level. It fails on a tree that is deeper
// than the limit of the process (RLIMIT_NOFILE, getrlimit(2)), and its error contains the
// path of every level. A build step can create such a tree with mkdir and chdir alone.
// Package rmtree holds at most two file descriptors in the tree and returns to the parent
// through "..", as rm(1) does (fts(3)).
package rmtree

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Remove removes name and everything below it. It returns nil if name does not exist.
// Symbolic links are followed only in the directory part of name. Remove goes on after an
// error if it can, and returns the first error. The caller must make sure that
// directories of the tree are not renamed meanwhile.
func Remove(name string) error {
	err := unix.Unlink(name)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	name = filepath.Clean(name)
	parent, openErr := os.Open(filepath.Dir(name))
	if openErr != nil {
		return openErr
	}
	defer func() { _ = parent.Close() }()
	if err := At(int(parent.Fd()), filepath.Base(name)); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// At is like Remove, for a name in the open directory dir.
func At(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	fd, openErr := open(dir, name)
	if errors.Is(openErr, unix.ENOTDIR) || errors.Is(openErr, unix.ELOOP) {
		return &os.PathError{Op: "unlink", Path: name, Err: err}
	}
	if openErr != nil {
		return &os.PathError{Op: "open", Path: name, Err: openErr}
	}
	r := &remover{fd: fd}
	r.enter(name)
	for len(r.levels) > 0 {
		if err := r.step(); err != nil {
			return errors.Join(r.err, err, unix.Close(r.fd))
		}
	}
	if err := unix.Close(r.fd); err != nil && r.err == nil {
		r.err = err
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) && r.err == nil {
		return &os.PathError{Op: "rmdir", Path: name, Err: err}
	}
	return r.err
}

func open(dir int, name string) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// remover removes a tree. It has one directory open at a time.
type remover struct {
	fd int
	// levels are the directories from the top of the tree to the open one.
	levels []level
	// err is the first error after which the removal went on.
	err error
}

// level is one directory between the top of the tree and the open directory.
type level struct {
	name     string
	dev, ino uint64
	// left are the names in it that are not removed yet.
	left []string
}

// enter lists the open directory, which is called name, and adds it to levels.
func (r *remover) enter(name string) {
	l := level{name: name}
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		r.note("stat", name, err)
	}
	l.dev, l.ino = st.Dev, st.Ino
	var err error
	if l.left, err = list(r.fd); err != nil {
		r.note("list", name, err)
	}
	r.levels = append(r.levels, l)
}

// step removes the files of the open directory. If it finds a directory, it enters it and
// returns. At the end it goes up to the parent and removes the directory there. It
// returns only errors after which the removal cannot go on.
func (r *remover) step() error {
	l := &r.levels[len(r.levels)-1]
	for len(l.left) > 0 {
		name := l.left[0]
		l.left = l.left[1:]
		err := unix.Unlinkat(r.fd, name, 0)
		if err == nil || errors.Is(err, unix.ENOENT) {
			continue
		}
		fd, openErr := open(r.fd, name)
		if openErr != nil {
			if !errors.Is(openErr, unix.ENOTDIR) && !errors.Is(openErr, unix.ELOOP) {
				err = openErr
			}
			r.note("remove", name, err)
			continue
		}
		_ = unix.Close(r.fd)
		r.fd = fd
		r.enter(name)
		return nil
	}
	done := l.name
	r.levels = r.levels[:len(r.levels)-1]
	if len(r.levels) == 0 {
		return nil
	}
	up, err := open(r.fd, "..")
	if err != nil {
		return &os.PathError{Op: "open", Path: r.path(done + "/.."), Err: err}
	}
	_ = unix.Close(r.fd)
	r.fd = up
	var st unix.Stat_t
	at := r.levels[len(r.levels)-1]
	if err := unix.Fstat(up, &st); err != nil || st.Dev != at.dev || st.Ino != at.ino {
		return &os.PathError{Op: "open", Path: r.path(done + "/.."), Err: errMoved}
	}
	if err := unix.Unlinkat(up, done, unix.AT_REMOVEDIR); err != nil && !errors.Is(err, unix.ENOENT) {
		r.note("rmdir", done, err)
	}
	return nil
}

var errMoved = errors.New("the directory was moved while it was removed")

// list returns the names in the open directory fd. It does not close fd.
func list(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 32<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func (r *remover) note(op, name string, err error) {
	if r.err == nil {
		r.err = &os.PathError{Op: op, Path: r.path(name), Err: err}
	}
}

// shownLevels is the largest number of directories that an error names.
const shownLevels = 8

// path returns the path of name in the tree. For a deep tree it has only the first
// directories.
func (r *remover) path(name string) string {
	var parts []string
	for i, l := range r.levels {
		if i == shownLevels {
			parts = append(parts, fmt.Sprintf("... %d directories", len(r.levels)-i))
			break
		}
		parts = append(parts, l.name)
	}
	return path.Join(append(parts, name)...)
}
