package recorded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ProbeError reports a requirement of recorded ownership that is missing on this machine.
type ProbeError struct {
	// Probe names the test that failed, Err is its error. Fix, if not empty, is advice to
	// the user.
	Probe string
	Err   error
	Fix   string
}

func (e *ProbeError) Error() string {
	msg := "record owners of files: " + e.Probe + ": " + e.Err.Error()
	if e.Fix != "" {
		msg += " (" + e.Fix + ")"
	}
	return msg
}

func (e *ProbeError) Unwrap() error { return e.Err }

const (
	fixListener = "a Linux of 5.7 or later, and no seccomp profile around this process that refuses seccomp(2) or seccomp listeners, are needed; or give the user ranges of subordinate ids"
	fixCalls    = "a Linux of 5.6 or later, and no seccomp profile around this process that does not know the call, are needed; or give the user ranges of subordinate ids"
	fixPtrace   = "sysctl kernel.yama.ptrace_scope must be below 3, as steps' memory is read; or give the user ranges of subordinate ids"
	fixXattr    = "put the store on a file system with user extended attributes, such as ext4, xfs or btrfs, with --root"
	fixHandle   = "put the store on a local file system, such as ext4, xfs or btrfs, with --root"
	fixSlack    = "the kernel must let a namespace's root write /proc/PID/timerslack_ns"
)

// Probe tests the requirements of a Supervisor, in about a millisecond. It installs a
// filter with a listener on a thread of this process, reads the memory of that thread,
// and writes its timer slack. It also writes Attribute to a file in dir. Probe must be
// called in the user namespace of the steps. The error is a *ProbeError.
func Probe(dir string) error {
	if err := probeAttribute(dir); err != nil {
		return &ProbeError{Probe: "extended attribute " + Attribute + " in " + dir, Err: err, Fix: fixXattr}
	}
	return ProbeSystem()
}

// ProbeBeside is Probe for NewBeside. It tests file handles in dir instead of Attribute.
func ProbeBeside(dir string) error {
	if err := probeHandles(dir); err != nil {
		return &ProbeError{Probe: "files of " + dir + ", which has no user attributes, told apart by their handles", Err: err, Fix: fixHandle}
	}
	return ProbeSystem()
}

// errHandles is returned if the file handles of a file system do not identify one file
// permanently.
var errHandles = errors.New("its file handles are not those of one file")

// probeHandles tests that a file keeps its handle under another name, and that the next
// file has another handle. FUSE and 9P are refused, because they forget unused files and
// give them new numbers later.
func probeHandles(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if fs.Type == unix.FUSE_SUPER_MAGIC || fs.Type == unix.V9FS_MAGIC {
		return errHandles
	}
	at, err := os.MkdirTemp(dir, "probe-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(at) }()
	one, two := filepath.Join(at, "one"), filepath.Join(at, "two")
	var sums [4]int64
	for i, step := range []func() error{
		func() error { return os.WriteFile(one, nil, 0o600) },
		func() error { return os.Rename(one, two) },
		func() error { return os.Link(two, one) },
		func() error { return errors.Join(os.Remove(two), os.Remove(one), os.WriteFile(one, nil, 0o600)) },
	} {
		name := one
		if i == 1 {
			name = two
		}
		if err := step(); err != nil {
			return err
		}
		if sums[i], err = handleSum(unix.AT_FDCWD, name, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if sums[0] != sums[1] || sums[1] != sums[2] || sums[2] == sums[3] {
		return errHandles
	}
	return nil
}

// ProbeSystem is Probe without the test of the file system.
func ProbeSystem() error {
	if err := probeCalls(); err != nil {
		return err
	}
	return probeListener()
}

// probeCalls tests that the kernel has the required system calls. It also tests that a
// filter for all threads of a process can have a listener (Linux 5.7). The calls have no
// effect here.
func probeCalls() error {
	const setModeFilter, flags = 1, 1<<0 | 1<<3 | 1<<4 // TSYNC, NEW_LISTENER, TSYNC_ESRCH
	// The kernel checks the flags before the program. The program is missing, so EFAULT
	// means that the flags are supported.
	if _, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, flags, 0); errno != unix.EFAULT {
		return &ProbeError{Probe: "seccomp listener for all threads", Err: errno, Fix: fixListener}
	}
	fd, err := unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return &ProbeError{Probe: "openat2", Err: err, Fix: fixCalls}
	}
	return unix.Close(fd)
}

func probeAttribute(dir string) (err error) {
	f, err := os.CreateTemp(dir, "probe-")
	if err != nil {
		return err
	}
	name := f.Name()
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	if err := writeAttribute(filepath.Clean(name), Record{UID: 1, GID: 2}, unix.S_IFREG); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := New().Lookup(unix.AT_FDCWD, name, &st); err != nil {
		return err
	}
	return nil
}

// probeTimeout is much longer than the kernel needs.
const probeTimeout = 5 * time.Second

// witness is the memory that the argument of the tested call points to.
var witness = []byte("shale\x00")

func probeListener() error {
	type start struct {
		fd  int
		err error
	}
	started, ended := make(chan start), make(chan int)
	go func() {
		runtime.LockOSThread() // the thread ends with its filter
		p := &program{}
		p.load(dataNumber)
		p.when(unix.SYS_GETPGID, retNotify)
		p.ret(retAllow)
		fd, err := install(p.bytes())
		started <- start{fd, err}
		if err == nil {
			// Not a raw call, so that the scheduler does not wait for this thread.
			n, _, _ := unix.Syscall(unix.SYS_GETPGID, uintptr(unsafe.Pointer(&witness[0])), 0, 0) //nolint:gosec // not a pointer to the kernel
			ended <- int(n)
		}
	}()
	s := <-started
	if s.err != nil {
		return &ProbeError{Probe: "seccomp listener", Err: s.err, Fix: fixListener}
	}
	err := probeAnswer(listener(s.fd))
	if closeErr := unix.Close(s.fd); err == nil && closeErr != nil {
		err = closeErr
	}
	if got := <-ended; err == nil && got != probeValue {
		err = &ProbeError{Probe: "seccomp listener", Err: fmt.Errorf("a call gave %d instead of %d", got, probeValue), Fix: fixListener}
	}
	return err
}

const probeValue = 4711

func probeAnswer(l listener) error {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &ProbeError{Probe: "/proc", Err: err}
	}
	defer unix.Close(proc) //nolint:errcheck // O_PATH
	s := &Supervisor{listener: l, proc: proc}
	// If a signal interrupts the call, for example one from Go's scheduler, the thread
	// calls again.
	for end := time.Now().Add(probeTimeout); ; {
		err := s.probeOne()
		again := errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR)
		if !again || time.Now().After(end) {
			return err
		}
	}
}

// probeOne answers one call. It returns ENOENT if a signal interrupted the call.
func (s *Supervisor) probeOne() error {
	fds := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
	ready, err := unix.Poll(fds, int(probeTimeout.Milliseconds()))
	if err == nil && ready == 0 {
		err = os.ErrDeadlineExceeded
	}
	if err != nil {
		return &ProbeError{Probe: "seccomp listener", Err: err, Fix: fixListener}
	}
	var n notification
	if err := s.listener.receive(&n); err != nil {
		return &ProbeError{Probe: "seccomp listener", Err: err, Fix: fixListener}
	}
	text, err := s.string(int(n.pid), n.args[0])
	if want := string(witness[:len(witness)-1]); err == nil && string(text) != want {
		err = fmt.Errorf("read %q instead of %q", text, want)
	}
	if err != nil {
		return &ProbeError{Probe: "process_vm_readv", Err: err, Fix: fixPtrace}
	}
	err = s.writeSlack(int(n.pid), slack+1)
	if err == nil {
		var got int
		if got, err = s.readSlack(int(n.pid)); err == nil && got != slack+1 {
			err = fmt.Errorf("%d was not kept", slack+1)
		}
	}
	if err != nil {
		return &ProbeError{Probe: "/proc/PID/timerslack_ns", Err: err, Fix: fixSlack}
	}
	r := value(probeValue).to(n.id)
	if err := s.listener.send(&r); err != nil {
		return &ProbeError{Probe: "seccomp listener", Err: err, Fix: fixListener}
	}
	return nil
}

// install installs a filter for the calling thread. Package initproc does the same for
// all threads of a container's first process.
func install(code []byte) (int, error) {
	program := unix.SockFprog{
		Len:    uint16(len(code) / 8),
		Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(code))), //nolint:gosec // the same layout
	}
	const setModeFilter, newListener = 1, 1 << 3
	fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, setModeFilter, newListener, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the call reads it
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}
