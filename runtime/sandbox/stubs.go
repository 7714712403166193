package sandbox

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// stubs are the mount points that the package creates in a root file system. They must
// not become part of the layer. After the run they are removed, unless the command wrote
// something into them. A directory gets its modification time back if only the stubs
// changed it. As with docker, only /proc, /dev and /sys remain if the image lacked them.
//
// All operations use directories that were opened, inside the root, before the command
// ran. The command cannot divert them by renaming a directory or by replacing it with a
// symbolic link (CVE-2024-23652).
type stubs struct {
	root   int
	made   []stub // in order of creation
	before []touched
	mounts map[string]bool // resolved targets so far
	// undo holds functions that remove the files that an InPlace put over the stubs. They
	// are called in reverse order.
	undo    []func() error
	inPlace bool
}

type stub struct {
	parent int // owned file descriptor
	name   string
	path   string
	ino    uint64
	dir    bool
	keep   bool
}

// touched is a directory in which a stub was created. mtime is its time before the first
// stub.
type touched struct {
	fd       int // owned file descriptor
	dev, ino uint64
	mtime    unix.Timespec
}

func newStubs(rootfs string) (*stubs, error) {
	fd, err := unix.Open(rootfs, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open root filesystem %s: %w", rootfs, err)
	}
	return &stubs{root: fd, mounts: map[string]bool{}}, nil
}

// covered reports whether p will be covered by a mount. In place there are no mounts, so
// the real file is at p and must be followed.
func (s *stubs) covered(p string) bool { return s.mounts[p] && !s.inPlace }

// place creates target if it does not exist and returns its path without symbolic links.
// If target is inside an earlier mount, libcontainer must create it.
func (s *stubs) place(target string, dir bool) (resolved string, created bool, err error) {
	w, err := newWalker(s.root, target, s.covered)
	if err != nil {
		return "", false, err
	}
	defer w.close()
	for {
		at, name, err := w.next()
		if err != nil {
			return "", false, err
		}
		switch at {
		case atCovered:
			return path.Join(append([]string{w.path(name)}, w.rest...)...), created, nil
		case atEnd:
			resolved = w.path(name)
			switch {
			case resolved == "/":
				return "", false, fmt.Errorf("%s leads to the root of the filesystem", target)
			case dir && name != "":
				return "", false, fmt.Errorf("%s: %w", resolved, unix.ENOTDIR)
			case !dir && name == "":
				return "", false, fmt.Errorf("%s: %w", resolved, unix.EISDIR)
			}
			s.mounts[resolved] = true
			return resolved, created, nil
		case atMissing:
			created = true
			isDir := dir || !w.last()
			if err := s.create(w, name, isDir); err != nil {
				return "", false, err
			}
			if isDir {
				err = w.push(name)
			} else {
				resolved = w.path(name)
				s.mounts[resolved] = true
				return resolved, true, nil
			}
			if err != nil {
				return "", false, err
			}
		}
	}
}

// placeSpecial calls place for a mount point of a kernel file system. Programs rely on
// these paths, so a symbolic link there is an attack (CVE-2019-19921) and an error.
func (s *stubs) placeSpecial(target string) error {
	var st unix.Stat_t
	err := unix.Fstatat(s.root, target[1:], &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%s in the root filesystem is not a directory", target)
	}
	_, _, err = s.place(target, true)
	return err
}

// create creates one stub. It restores the modification time of the parent at once. So a
// different time after the run can only come from the command.
func (s *stubs) create(w *walker, name string, dir bool) error {
	full := w.path(name)
	parent, err := s.touch(w.dir())
	if err != nil {
		return fmt.Errorf("create mount point %s: %w", full, err)
	}
	if err := createStub(w.dir(), name, dir); err != nil {
		return fmt.Errorf("create mount point %s: %w", full, err)
	}
	made := stub{name: name, path: full, dir: dir}
	var st unix.Stat_t
	if err := unix.Fstatat(w.dir(), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat mount point %s: %w", full, err)
	}
	made.ino = st.Ino
	if made.parent, err = unix.FcntlInt(uintptr(w.dir()), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return fmt.Errorf("create mount point %s: %w", full, err)
	}
	s.made = append(s.made, made)
	return setMtime(s.before[parent].fd, s.before[parent].mtime)
}

func createStub(parent int, name string, dir bool) error {
	if dir {
		return unix.Mkdirat(parent, name, 0o755)
	}
	fd, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// touch remembers a directory's modification time before its first stub and returns its
// index in before. If overlayfs copies up the directory between two calls, its inode
// number may change. Then it is remembered twice, with the same time.
func (s *stubs) touch(fd int) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	for i, t := range s.before {
		if t.dev == st.Dev && t.ino == st.Ino {
			return i, nil
		}
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	s.before = append(s.before, touched{fd: own, dev: st.Dev, ino: st.Ino, mtime: st.Mtim})
	return len(s.before) - 1, nil
}

func setMtime(dir int, mtime unix.Timespec) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, mtime}
	if err := unix.UtimesNanoAt(dir, ".", times, 0); err != nil {
		return fmt.Errorf("restore modification time: %w", err)
	}
	return nil
}

// retain keeps the stubs on the path to p, because the image must have them.
func (s *stubs) retain(p string) {
	for i := range s.made {
		if m := s.made[i].path; p == m || len(p) > len(m) && p[:len(m)+1] == m+"/" {
			s.made[i].keep = true
		}
	}
}

// retainBelow keeps the stubs below p.
func (s *stubs) retainBelow(p string) {
	for i := range s.made {
		if strings.HasPrefix(s.made[i].path, p+"/") {
			s.made[i].keep = true
		}
	}
}

// remove removes the stubs and closes all file descriptors.
func (s *stubs) remove() error {
	defer s.close()
	after := make([]unix.Timespec, len(s.before))
	var errs []error
	for i, t := range s.before {
		var st unix.Stat_t
		if err := unix.Fstat(t.fd, &st); err != nil {
			errs = append(errs, err)
		}
		after[i] = st.Mtim
	}
	for _, undo := range slices.Backward(s.undo) {
		errs = append(errs, undo())
	}
	for _, v := range slices.Backward(s.made) {
		if m := v; !m.keep {
			if err := m.remove(); err != nil {
				errs = append(errs, fmt.Errorf("remove mount point %s: %w", m.path, err))
			}
		}
	}
	for i, t := range s.before {
		var st unix.Stat_t
		if err := unix.Fstat(t.fd, &st); err != nil || st.Nlink == 0 {
			continue // a stub, or deleted by the command
		}
		if st.Mtim == after[i] {
			continue
		}
		if err := setMtime(t.fd, after[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// remove removes the stub. It does nothing if the stub was replaced or is not empty.
func (m stub) remove() error {
	var st unix.Stat_t
	err := unix.Fstatat(m.parent, m.name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	flags := 0
	switch {
	case st.Ino != m.ino:
		return nil
	case m.dir:
		flags = unix.AT_REMOVEDIR
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0:
		return nil
	}
	err = unix.Unlinkat(m.parent, m.name, flags)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	return err
}

func (s *stubs) close() {
	for _, m := range s.made {
		_ = unix.Close(m.parent) // a directory: no data can be lost
	}
	for _, t := range s.before {
		_ = unix.Close(t.fd)
	}
	_ = unix.Close(s.root)
}
