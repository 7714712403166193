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
	pageSize = 4096 // the least there is; more only costs a second piece
)

func fdArg(arg uint64) int    { return int(int32(arg)) }
func idArg(arg uint64) uint32 { return uint32(arg) }

// read copies memory of a thread. Whether it still was the caller's is for
// valid to tell, before anything is done by it.
func read(tid int, at uint64, into []byte) (int, error) {
	if len(into) == 0 {
		return 0, nil
	}
	local := []unix.Iovec{{Base: &into[0]}}
	local[0].SetLen(len(into))
	// The kernel gives all or nothing of a piece, so pieces end with pages.
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

// string reads a path into s.text.
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

// write copies data into the caller's memory. The file of that memory is opened
// before it is certain that the caller still waits: its number may be another's
// one day, the file may not.
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

// status returns a line of a thread's status, without its name.
func (s *Supervisor) status(tid int, name string) ([]byte, error) {
	return s.line(strconv.Itoa(tid)+"/status", name)
}

// namesOnly tells whether the descriptor that a call is about is there but only names
// a file (O_PATH), so that few calls take it.
func (s *Supervisor) namesOnly(n *notification) bool {
	text, err := s.line(strconv.Itoa(int(n.pid))+"/fdinfo/"+strconv.Itoa(fdArg(n.args[0])), "flags:")
	if err != nil {
		return false
	}
	flags, err := strconv.ParseUint(string(text), 8, 64)
	return err == nil && flags&unix.O_PATH != 0
}

// line returns a line of a file of /proc, without its name.
func (s *Supervisor) line(file, name string) ([]byte, error) {
	fd, err := unix.Openat(s.proc, file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	// Who is in thousands of groups has a long one.
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

// lineOf finds the line that begins with name and returns the rest of it.
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

// base names, below /proc, what a path of a thread begins at.
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

// climbs tells whether a path below a thread's directory in /proc leads out of it
// again. There this thread is in the builder's /proc, above which the host is.
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

// ownPath is the part of a path that means the thread itself which is to be found
// below its directory in /proc.
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

// name writes into s.path, with a NUL at its end, how this thread reaches path of
// another one: absolute paths as they are, the root being the same, others through
// /proc, which is the working directory. What means the thread itself is named by
// its number.
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

// errMagic says that a path leads through one of /proc's own links, which this
// thread would follow as itself.
var errMagic = unix.ELOOP

// find opens what a path of a thread names, to act on it. Of the links of /proc
// only those to the thread's own directories and descriptors are followed. "" is
// what dirfd is. The caller checks that the notification is valid.
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

// findOwn opens a descriptor that a thread names by /proc/self/fd; other links
// there stay closed.
func (s *Supervisor) findOwn(tid int, name []byte) (int, error) {
	number, ok := bytes.CutPrefix(name, append(strconv.AppendInt(nil, int64(tid), 10), "/fd/"...))
	fd, err := strconv.Atoi(string(number))
	if !ok || err != nil || fd < 0 {
		return -1, errMagic
	}
	return unix.Openat(s.proc, string(appendBase(nil, tid, fd)), unix.O_PATH|unix.O_CLOEXEC, 0)
}

// own names a descriptor of this process.
func own(fd int) string { return "self/fd/" + strconv.Itoa(fd) }

var attributeName = append([]byte(Attribute), 0)

// record reads the record of the file of that name, NUL at its end.
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

// recordOf reads the record of an open file.
func (s *Supervisor) recordOf(fd int) (Record, bool) {
	return s.record(append([]byte(own(fd)), 0), true)
}

// setRecord records r for an open file of that mode.
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

// keyBelow is the key of a file in the upper directory itself. Overlayfs goes on
// showing the inode number of the lower file that was copied up, but not for ever,
// and who packs the upper directory sees the other one.
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
	// The time of birth is the upper file's in both views.
	return k, err == nil && k != shown && k.sec == shown.sec && k.nsec == shown.nsec
}
