package recorded

import (
	"bytes"
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

const (
	pathMax  = unix.PathMax
	pageSize = 4096 // the smallest page size; with larger pages only one more piece is read
)

func fdArg(arg uint64) int    { return int(int32(arg)) }
func idArg(arg uint64) uint32 { return uint32(arg) }

// read copies memory of the thread tid. The thread may have ended and its number may be
// in use again. Before the caller of read acts on the data, it must call listener.valid.
func read(tid int, at uint64, into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &into[0]}}
	local[0].SetLen(len(into))
	// The kernel copies a piece completely or not at all, so each piece ends with a page.
	first := min(len(into), pageSize-int(at%pageSize))
	remote := []unix.RemoteIovec{{Base: uintptr(at), Len: first}}
	if rest := len(into) - first; rest > 0 {
		remote = append(remote, unix.RemoteIovec{Base: uintptr(at) + uintptr(first), Len: rest})
	}
	n, err := unix.ProcessVMReadv(tid, local, remote, 0)
	if errors.Is(err, unix.EPERM) {
		err = unix.EFAULT
	}
	return n, err
}

// string reads a path of a thread into s.text. It returns ENAMETOOLONG for a path longer
// than PATH_MAX, and EFAULT for one that cannot be read.
func (s *Supervisor) string(tid int, at uint64) ([]byte, error) {
	n, err := read(tid, at, s.text[:])
	if err != nil {
		return nil, err
	}
	end := bytes.IndexByte(s.text[:n], 0)
	switch {
	case end >= 0:
		return s.text[:end], nil
	case n == len(s.text):
		return nil, unix.ENAMETOOLONG
	}
	return nil, unix.EFAULT
}

// write copies data into the caller's memory. It opens the memory before it calls
// listener.valid. The thread number may be reused later, but the open file belongs to the
// same thread.
func (s *Supervisor) write(n *notification, at uint64, data []byte) error {
	fd, err := unix.Openat(s.proc, strconv.Itoa(int(n.pid))+"/mem", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // memory
	if !s.listener.valid(n.id) {
		return unix.ESRCH
	}
	if int64(at) < 0 {
		return unix.EFAULT
	}
	got, err := unix.Pwrite(fd, data, int64(at))
	if err != nil || got != len(data) {
		return unix.EFAULT
	}
	return nil
}

func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) //nolint:gosec // plain data that goes to a C program
}

// status returns the line called name of a thread's status file, without the name.
func (s *Supervisor) status(tid int, name string) ([]byte, error) {
	return s.line(strconv.Itoa(tid)+"/status", name)
}

// namesOnly reports whether the file descriptor in the first argument was opened with
// O_PATH. Few calls accept such a descriptor.
func (s *Supervisor) namesOnly(n *notification) bool {
	text, err := s.line(strconv.Itoa(int(n.pid))+"/fdinfo/"+strconv.Itoa(fdArg(n.args[0])), "flags:")
	if err != nil {
		return false
	}
	flags, err := strconv.ParseUint(string(text), 8, 64)
	return err == nil && flags&unix.O_PATH != 0
}

// line returns the line called name of a file in /proc, without the name. It returns
// ENOENT if there is no such line.
func (s *Supervisor) line(file, name string) ([]byte, error) {
	fd, err := unix.Openat(s.proc, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	// If the thread is in thousands of groups, the status file has a long line.
	for buf, got := make([]byte, 4096), 0; ; {
		n, err := unix.Read(fd, buf[got:])
		if err != nil {
			return nil, err
		}
		got += n
		if text, ok := lineOf(buf[:got], name); ok {
			return text, nil
		}
		switch {
		case n == 0:
			return nil, unix.ENOENT
		case got == len(buf):
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// lineOf returns the rest of the first complete line that begins with name.
func lineOf(text []byte, name string) ([]byte, bool) {
	for len(text) > 0 {
		line, rest, complete := bytes.Cut(text, []byte("\n"))
		if value, ok := bytes.CutPrefix(line, []byte(name)); ok && complete {
			return bytes.TrimSpace(value), true
		}
		text = rest
	}
	return nil, false
}

// appendBase appends the path, below /proc, at which a relative path of a thread starts.
func appendBase(b []byte, tid, dirfd int) []byte {
	b = strconv.AppendInt(b, int64(tid), 10)
	if dirfd == unix.AT_FDCWD {
		return append(b, "/cwd"...)
	}
	return strconv.AppendInt(append(b, "/fd/"...), int64(dirfd), 10)
}

var (
	procSelf   = []byte("/proc/self/")
	threadSelf = []byte("/proc/thread-self/")
	devFD      = []byte("/dev/fd/")
)

// climbs reports whether a path below a thread's directory in /proc leads out of that
// directory. There it would reach the builder's /proc, and then the host's root
// directory.
func climbs(path []byte) bool {
	depth := 0
	for part := range bytes.SplitSeq(path, []byte("/")) {
		switch string(part) {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

// ownPath reports whether path refers to the thread itself, as /proc/self/ or /dev/stdout
// do. It returns the matching path below the thread's directory in /proc.
func ownPath(path []byte) (below string, rest []byte, ok bool) {
	for _, p := range []struct {
		prefix []byte
		below  string
	}{{procSelf, "/"}, {threadSelf, "/"}, {devFD, "/fd/"}} {
		if rest, ok := bytes.CutPrefix(path, p.prefix); ok {
			return p.below, rest, true
		}
	}
	switch string(path) {
	case "/dev/stdin":
		return "/fd/0", nil, true
	case "/dev/stdout":
		return "/fd/1", nil, true
	case "/dev/stderr":
		return "/fd/2", nil, true
	}
	return "", nil, false
}

// name translates path, as the thread tid uses it, to a path for the supervisor's thread.
// It writes the result to s.path, with a NUL at the end. Absolute paths stay unchanged,
// because both threads have the same root directory. Relative paths go through /proc,
// which is the working directory. In paths that refer to the thread itself, the thread's
// number replaces self.
func (s *Supervisor) name(tid, dirfd int, path []byte) []byte {
	b := s.path[:0]
	switch {
	case len(path) == 0:
		b = appendBase(b, tid, dirfd)
	case path[0] != '/':
		b = append(append(appendBase(b, tid, dirfd), '/'), path...)
	default:
		below, rest, ok := ownPath(path)
		if !ok || climbs(append([]byte(below), rest...)) {
			b = append(b, path...)
			break
		}
		b = append(append(strconv.AppendInt(b, int64(tid), 10), below...), rest...)
	}
	return append(b, 0)
}

// errMagic is returned if a path leads through a magic link in /proc. The kernel would
// resolve such a link for the supervisor's thread instead of the caller.
var errMagic = unix.ELOOP

// find opens the file that a thread calls path with O_PATH. Of the magic links in /proc,
// it follows only those to the thread's own directories and file descriptors. If path is
// empty, the file is dirfd. The caller must call listener.valid before it acts on the
// file.
func (s *Supervisor) find(tid, dirfd int, path []byte, flags uint64) (int, error) {
	at := unix.AT_FDCWD
	if len(path) == 0 || path[0] != '/' {
		base, err := unix.Openat(s.proc, string(appendBase(nil, tid, dirfd)), unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) {
			err = unix.EBADF
		}
		if err != nil || len(path) == 0 {
			return base, err
		}
		defer unix.Close(base) //nolint:errcheck // O_PATH
		at = base
	} else if name := s.name(tid, dirfd, path); name[0] != '/' {
		return s.findOwn(tid, name[:len(name)-1])
	}
	how := &unix.OpenHow{Flags: flags | unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err := unix.Openat2(at, string(path), how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// findOwn opens a file descriptor that a thread names as /proc/self/fd/N. It refuses
// other links below /proc/self.
func (s *Supervisor) findOwn(tid int, name []byte) (int, error) {
	number, ok := bytes.CutPrefix(name, append(strconv.AppendInt(nil, int64(tid), 10), "/fd/"...))
	fd, err := strconv.Atoi(string(number))
	if !ok || err != nil || fd < 0 {
		return -1, errMagic
	}
	return unix.Openat(s.proc, string(appendBase(nil, tid, fd)), unix.O_PATH|unix.O_CLOEXEC, 0)
}

// own returns the path of a file descriptor of this process, below /proc.
func own(fd int) string { return "self/fd/" + strconv.Itoa(fd) }

var attributeName = append([]byte(Attribute), 0)

// record returns the record of the file name. name must end with a NUL.
func (s *Supervisor) record(name []byte, follow bool) (Record, bool) {
	flags := unix.AT_SYMLINK_NOFOLLOW
	if follow {
		flags = 0
	}
	if s.table.beside {
		r, ok, err := s.table.find(s.proc, string(name[:len(name)-1]), flags)
		return r, ok && err == nil
	}
	call := uintptr(unix.SYS_LGETXATTR)
	if follow {
		call = unix.SYS_GETXATTR
	}
	n, _, errno := unix.Syscall6(call, uintptr(unsafe.Pointer(&name[0])), uintptr(unsafe.Pointer(&attributeName[0])), //nolint:gosec // the call reads them
		uintptr(unsafe.Pointer(&s.attr[0])), uintptr(len(s.attr)), 0, 0) //nolint:gosec // the call writes it
	if errno == 0 {
		r, err := Parse(s.attr[:n])
		return r, err == nil
	}
	if errno == unix.ENOENT {
		return Record{}, false
	}
	r, ok, err := s.table.find(s.proc, string(name[:len(name)-1]), flags)
	return r, ok && err == nil
}

// recordOf returns the record of an open file.
func (s *Supervisor) recordOf(fd int) (Record, bool) {
	return s.record(append([]byte(own(fd)), 0), true)
}

// setRecord records r for an open file with this mode.
func (s *Supervisor) setRecord(fd int, mode uint32, r Record) error {
	var err error
	if kind := mode & unix.S_IFMT; !s.table.beside && (kind == unix.S_IFREG || kind == unix.S_IFDIR) {
		if r.plain() {
			err = unix.Removexattr(own(fd), Attribute)
		} else {
			err = unix.Setxattr(own(fd), Attribute, r.format(mode), 0)
		}
		if err == nil || errors.Is(err, unix.ENODATA) {
			return nil
		}
		if !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	if r.plain() && s.table.empty() {
		return nil
	}
	k, err := s.table.key(fd, "", 0)
	if err != nil {
		return err
	}
	if real, ok := s.keyBelow(fd, k); ok {
		if err := s.table.set(real, r); err != nil {
			return err
		}
	}
	return s.table.set(k, r)
}

// keyBelow returns the key of the file in the upper directory itself, if it differs from
// the key shown in the overlay. After a copy-up overlayfs still shows the inode number of
// the lower file, but not permanently. Code that packs the upper directory sees the
// number of the upper file.
func (s *Supervisor) keyBelow(fd int, shown key) (key, bool) {
	if s.upper < 0 {
		return key{}, false
	}
	var buf [pathMax]byte
	n, err := unix.Readlink(own(fd), buf[:])
	if err != nil || n < 2 || buf[0] != '/' {
		return key{}, false
	}
	real, err := confine.Open(s.upper, string(buf[1:n]), unix.O_PATH|unix.O_NOFOLLOW, 0, confine.Beneath|confine.NoSymlinks|confine.NoXDev)
	if err != nil {
		return key{}, false
	}
	defer unix.Close(real) //nolint:errcheck // O_PATH
	k, err := s.table.key(real, "", 0)
	// Both views show the time of birth of the upper file.
	return k, err == nil && k != shown && k.sec == shown.sec && k.nsec == shown.nsec
}
