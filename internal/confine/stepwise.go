package confine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is the number of symbolic links that the kernel follows in one path
// (MAXSYMLINKS).
const maxLinks = 40

// stepwise is like Open but calls openat(2) for each component of the path. For ".." it
// returns to the directory that it opened before and does not ask the kernel. If that
// directory is moved meanwhile, the path still cannot lead anywhere else.
func stepwise(root int, path string, flags int, mode uint32, resolve uint64) (int, error) {
	if path == "" {
		return -1, unix.ENOENT
	}
	w := &walk{root: root, resolve: resolve}
	defer w.close()
	if resolve&NoXDev != 0 {
		var err error
		if w.mount, err = mountID(root); err != nil {
			return -1, err
		}
	}
	if err := w.put(path); err != nil {
		return -1, err
	}
	for len(w.rest) > 0 {
		name := w.rest[0]
		w.rest = w.rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			if err := w.up(); err != nil {
				return -1, err
			}
			continue
		}
		if w.last() {
			fd, opened, err := w.open(name, flags, mode)
			if err != nil || opened {
				return fd, err
			}
			continue
		}
		if err := w.down(name); err != nil {
			return -1, err
		}
	}
	// The path ends with a directory that is already open.
	return retry(func() (int, error) { return unix.Openat(w.here(), ".", flags, mode) })
}

// walk is the state of one path lookup.
type walk struct {
	root    int
	resolve uint64
	dirs    []int // below root; closed by close
	rest    []string
	links   int
	mount   string
}

func (w *walk) close() {
	for _, fd := range w.dirs {
		_ = unix.Close(fd) // O_PATH
	}
}

func (w *walk) here() int {
	if len(w.dirs) == 0 {
		return w.root
	}
	return w.dirs[len(w.dirs)-1]
}

// last reports whether no component follows. A trailing slash counts as a component,
// because it requires a directory.
func (w *walk) last() bool { return len(w.rest) == 0 }

// put inserts path before the remaining components.
func (w *walk) put(path string) error {
	if path[0] == '/' {
		if w.resolve&Beneath != 0 {
			return unix.EXDEV
		}
		w.close()
		w.dirs = nil
	}
	w.rest = append(strings.Split(path, "/"), w.rest...)
	return nil
}

func (w *walk) up() error {
	if len(w.dirs) == 0 {
		if w.resolve&Beneath != 0 {
			return unix.EXDEV
		}
		return nil
	}
	_ = unix.Close(w.here()) // O_PATH
	w.dirs = w.dirs[:len(w.dirs)-1]
	return nil
}

// down enters the directory name, or follows it if it is a symbolic link.
func (w *walk) down(name string) error {
	fd, st, err := w.look(name)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		defer unix.Close(fd) //nolint:errcheck // O_PATH
		return w.follow(fd)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		_ = unix.Close(fd) // O_PATH
		return unix.ENOTDIR
	}
	w.dirs = append(w.dirs, fd)
	return nil
}

// open opens the last component. If it is a symbolic link that flags do not ask to open
// itself, open follows it and returns opened as false.
func (w *walk) open(name string, flags int, mode uint32) (fd int, opened bool, err error) {
	found, st, err := w.look(name)
	missing := errors.Is(err, unix.ENOENT)
	if err != nil && (!missing || flags&unix.O_CREAT == 0) {
		return -1, false, err
	}
	if !missing {
		defer unix.Close(found) //nolint:errcheck // O_PATH
		exclusive := flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL
		if st.Mode&unix.S_IFMT == unix.S_IFLNK && flags&unix.O_NOFOLLOW == 0 && !exclusive {
			return -1, false, w.follow(found)
		}
	}
	// If the name has become a symbolic link meanwhile, O_NOFOLLOW makes the kernel
	// refuse it.
	fd, err = retry(func() (int, error) { return unix.Openat(w.here(), name, flags|unix.O_NOFOLLOW, mode) })
	if err == nil {
		err = w.sameMount(fd)
	}
	if err != nil && fd >= 0 {
		_ = unix.Close(fd)
		fd = -1
	}
	return fd, err == nil, err
}

// look opens name with O_PATH. It opens a symbolic link itself, without following it.
func (w *walk) look(name string) (int, *unix.Stat_t, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(w.here(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return -1, nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil {
		err = w.sameMount(fd)
	}
	if err != nil {
		_ = unix.Close(fd) // O_PATH
		return -1, nil, err
	}
	return fd, &st, nil
}

func (w *walk) follow(link int) error {
	if w.links++; w.links > maxLinks || w.resolve&NoSymlinks != 0 {
		return unix.ELOOP
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(link, &fs); err != nil {
		return err
	}
	// Magic links of procfs need not lead to the path that they show.
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return unix.ELOOP
	}
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(link, "", buf[:])
	if err != nil {
		return err
	}
	if n == 0 {
		return unix.ENOENT
	}
	if n == len(buf) {
		return unix.ENAMETOOLONG
	}
	return w.put(string(buf[:n]))
}

func (w *walk) sameMount(fd int) error {
	if w.resolve&NoXDev == 0 {
		return nil
	}
	id, err := mountID(fd)
	if err == nil && id != w.mount {
		err = unix.EXDEV
	}
	return err
}

// mountID returns the mount id of an open file from proc_pid_fdinfo(5). statx(2) returns
// it only from Linux 5.8 on.
func mountID(fd int) (string, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return "", err
	}
	for line := range bytes.Lines(info) {
		if id, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			return string(bytes.TrimSpace(id)), nil
		}
	}
	return "", unix.ENOTSUP
}
