package sandbox

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const maxLinks = 40 // path_resolution(7)

// walker follows a path inside a root file system as a process with that root directory
// would. It opens each component separately and follows no link in the kernel. For "..",
// it returns to the file descriptor of the parent that it opened before. So no path can
// leave the root.
type walker struct {
	dirs   []int // open directories from the root to the current one
	names  []string
	rest   []string
	links  int
	covers func(string) bool // reports whether a mount will cover the path
}

func newWalker(root int, target string, covers func(string) bool) (*walker, error) {
	fd, err := unix.FcntlInt(uintptr(root), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &walker{dirs: []int{fd}, rest: strings.Split(target, "/"), covers: covers}, nil
}

func (w *walker) close() { w.truncate(0) }

func (w *walker) truncate(depth int) {
	for _, fd := range w.dirs[depth:] {
		_ = unix.Close(fd) // no data can be lost
	}
	w.dirs = w.dirs[:depth]
	if depth > 0 {
		w.names = w.names[:depth-1]
	}
}

func (w *walker) dir() int { return w.dirs[len(w.dirs)-1] }

func (w *walker) path(name string) string {
	return path.Join("/", path.Join(w.names...), name)
}

// last reports whether only empty components are left.
func (w *walker) last() bool {
	for _, c := range w.rest {
		if c != "" && c != "." {
			return false
		}
	}
	return true
}

// step is the reason why a walk stopped.
type step int

const (
	atEnd     step = iota // the target exists; it is the current directory or a file called name in it
	atMissing             // name does not exist in the current directory
	atCovered             // the rest of the path is inside the mount at path(name)
)

// next continues to the end of the path or to a component for which the caller must
// decide. It returns the name of that component.
func (w *walker) next() (step, string, error) {
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(w.dirs) > 1 {
				w.truncate(len(w.dirs) - 1)
			}
			continue
		}
		if w.covers(w.path(name)) {
			return atCovered, name, nil
		}
		s, done, err := w.enter(name)
		if err != nil || done {
			return s, name, err
		}
	}
	return atEnd, "", nil
}

// enter enters the directory name or follows the link name. done is true if the caller
// must decide.
func (w *walker) enter(name string) (s step, done bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(w.dir(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return atMissing, true, nil
	case err != nil:
		return 0, false, fmt.Errorf("stat %s: %w", w.path(name), err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return 0, false, w.follow(name)
	case unix.S_IFDIR:
		return 0, false, w.push(name)
	}
	if !w.last() {
		return 0, false, fmt.Errorf("%s: %w", w.path(name), unix.ENOTDIR)
	}
	return atEnd, true, nil
}

func (w *walker) push(name string) error {
	fd, err := unix.Openat(w.dir(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", w.path(name), err)
	}
	w.dirs = append(w.dirs, fd)
	w.names = append(w.names, name)
	return nil
}

func (w *walker) follow(name string) error {
	if w.links++; w.links > maxLinks {
		return fmt.Errorf("%s: %w", w.path(name), unix.ELOOP)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(w.dir(), name, buf)
	if err != nil {
		return fmt.Errorf("read link %s: %w", w.path(name), err)
	}
	target := string(buf[:n])
	if path.IsAbs(target) {
		w.truncate(1)
	}
	w.rest = append(strings.Split(target, "/"), w.rest...)
	return nil
}
