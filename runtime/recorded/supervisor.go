package recorded

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// Start has the initial state of a step, for Serve. UID and GID are the ids of its first
// process, as in the image. They need not be mapped. Owners must not be nil.
type Start struct {
	Tier     Tier
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	Owners *Owners
	// Upper is the upper directory of the step's root file system. It is "" if that is
	// not an overlay.
	Upper string
	// Logger may be nil.
	Logger *slog.Logger
}

// Supervisor answers the system calls of one step that set or show owners. Serve runs a
// Supervisor for the time of the step.
type Supervisor struct {
	listener listener
	tier     Tier
	first    creds
	table    *Table
	logger   *slog.Logger

	// proc is the builder's /proc. Notifications identify threads by their numbers in it.
	// While the step runs, it is the working directory of the supervisor's thread.
	proc int
	// root is the step's root directory. It is set when the step begins to run.
	root int
	// upper is the open directory Start.Upper, or -1.
	upper int
	fast  *fast
	tags  tags

	text [pathMax]byte
	path [pathMax + 64]byte
	attr [64]byte
}

// Serve answers the system calls that arrive at the listener fd. It takes ownership of fd
// and closes it. Serve returns when no process of the step is left, or after an error. It
// returns the number of calls by system call. After an error, every call that the filter
// passes on fails with ENOSYS, so the caller must end the step.
func Serve(fd int, start Start) (Stats, error) {
	if start.Logger == nil {
		start.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{
		listener: listener(fd), tier: start.Tier, first: newCreds(start.UID, start.GID, start.Groups),
		table: &start.Owners.table, logger: start.Logger, proc: -1, root: -1, upper: -1,
	}
	s.fast = newFast(fd, s.first)
	if start.Upper != "" {
		var err error
		if s.upper, err = unix.Open(start.Upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			s.close()
			return nil, fmt.Errorf("open the step's upper directory: %w", err)
		}
	}
	done := make(chan error)
	go func() {
		// The thread is never unlocked, because it has a root directory of its own. It
		// ends with the step.
		runtime.LockOSThread()
		done <- s.serve()
	}()
	err := <-done
	return s.fast.counts(), err
}

func (s *Supervisor) serve() (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.logger.Error("the supervisor of a step failed", "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("answer the system calls of the step: %v", p)
		}
		s.close()
	}()
	// The thread needs a root directory and a working directory of its own.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("separate the supervisor: %w", err)
	}
	if s.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open /proc: %w", err)
	}
	if !s.listener.fast() {
		s.logger.Debug("the kernel has no synchronous wake-up of seccomp listeners: recorded ownership is slower")
	}
	return s.loop()
}

func (s *Supervisor) close() {
	for _, fd := range []int{int(s.listener), s.proc, s.root, s.upper} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (s *Supervisor) loop() error {
	for {
		n, err := s.fast.serve(s.table)
		if n == nil || err != nil {
			return err
		}
		a, err := s.answer(n)
		if err != nil {
			return err
		}
		r := a.to(n.id)
		for err = s.listener.send(&r); errors.Is(err, unix.EINTR); err = s.listener.send(&r) {
			continue
		}
		// ENOENT: the caller was killed. EINPROGRESS is impossible, because no answer was
		// sent before.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer a system call: %w", err)
		}
	}
}

// wakesWhenDeserted reports whether a receiving thread wakes when no process is left
// (Linux 6.11).
func wakesWhenDeserted() bool {
	major, minor := kernelVersion()
	return major > 6 || major == 6 && minor >= 11
}

func kernelVersion() (major, minor int) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return 0, 0
	}
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return major, minor
}

func (s *Supervisor) answer(n *notification) (answer, error) {
	if !s.fast.isRunning() {
		return s.prepare(n)
	}
	c, ok := calls[int(n.nr)]
	if !ok || c.handle == nil {
		return goOn, nil
	}
	if !s.fast.hasMoved() {
		return c.handle(s, n), nil
	}
	defer s.follow(int(n.pid))()
	return c.handle(s, n), nil
}

// prepare answers calls before the step's first program is executed. They come from the
// first process of the container, which is part of the builder. That process changes to
// the step's user and gives it the standard streams. The user is not mapped, so prepare
// reports success for these calls. The first program that the process executes is that of
// the step.
func (s *Supervisor) prepare(n *notification) (answer, error) {
	switch int(n.nr) {
	case unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID,
		unix.SYS_SETRESGID, unix.SYS_SETGROUPS, unix.SYS_FCHOWN:
		return answer{}, nil
	case unix.SYS_EXECVE, unix.SYS_EXECVEAT:
		if first, err := s.isFirst(int(n.pid)); !first || err != nil {
			return goOn, nil //nolint:nilerr // it has ended
		}
		return goOn, s.begin(int(n.pid))
	}
	return goOn, nil
}

// isFirst reports whether a process has number 1 in its pid namespace.
func (s *Supervisor) isFirst(pid int) (bool, error) {
	text, err := s.status(pid, "NSpid:")
	if err != nil {
		return false, err
	}
	f := bytes.Fields(text)
	return len(f) > 0 && string(f[len(f)-1]) == "1", nil
}

// begin moves the supervisor's thread into the mount namespace of the step. The thread
// stays outside the step's other namespaces, so that no process of the step can see it or
// send it a signal.
func (s *Supervisor) begin(pid int) error {
	if err := s.writeSlack(pid, slack); err != nil {
		return fmt.Errorf("mark a process (timerslack_ns): %w", err)
	}
	ns, err := unix.Openat(s.proc, strconv.Itoa(pid)+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("find the step's mounts: %w", err)
	}
	root, err := unix.Openat(s.proc, strconv.Itoa(pid)+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return errors.Join(fmt.Errorf("find the step's root: %w", err), unix.Close(ns))
	}
	s.root = root
	err = unix.Setns(ns, unix.CLONE_NEWNS)
	if err := errors.Join(err, unix.Close(ns)); err != nil {
		return fmt.Errorf("enter the step's mounts: %w", err)
	}
	unix.Umask(0) // changes only this thread
	s.fast.run()
	return s.home()
}

// home makes the step's root directory the root directory of the supervisor's thread.
func (s *Supervisor) home() error {
	err := unix.Fchdir(s.root)
	if err == nil {
		err = unix.Chroot(".")
	}
	if err == nil {
		err = unix.Fchdir(s.proc)
	}
	if err != nil {
		return fmt.Errorf("enter the step's root: %w", err)
	}
	return nil
}

// follow changes the root directory of the supervisor's thread to that of the thread tid,
// until back is called.
func (s *Supervisor) follow(tid int) (back func()) {
	var buf [2]byte
	at := strconv.Itoa(tid) + "/root"
	if n, err := unix.Readlinkat(s.proc, at, buf[:]); err != nil || n == 1 && buf[0] == '/' {
		return func() {} // the root is the step's, or the thread has ended
	}
	if err := unix.Chroot(at); err != nil {
		return func() {} // the thread has ended
	}
	return func() {
		if err := s.home(); err != nil {
			panic(err)
		}
	}
}

// Stats maps numbers of system calls to the number of calls in a step. It is for the log.
type Stats map[int]uint64

// Total returns the number of all calls.
func (t Stats) Total() (sum uint64) {
	for _, n := range t {
		sum += n
	}
	return sum
}

// LogValue implements slog.LogValuer.
func (t Stats) LogValue() slog.Value {
	var list []slog.Attr
	for _, n := range slices.Sorted(maps.Keys(t)) {
		list = append(list, slog.Uint64(strconv.Itoa(n), t[n]))
	}
	return slog.GroupValue(list...)
}
