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

// Start says what a step starts as.
type Start struct {
	Tier     Tier
	UID, GID uint32
	// Groups are the supplementary groups.
	Groups []uint32
	Owners *Owners
	// Upper is the directory that takes the changes of the step's root file
	// system, "" if that is no overlay.
	Upper string
	// Logger may be nil.
	Logger *slog.Logger
}

// Supervisor answers the calls of one step.
type Supervisor struct {
	listener listener
	tier     Tier
	first    creds
	table    *Table
	logger   *slog.Logger

	// proc is the builder's /proc, in which threads have the numbers that
	// notifications give them. It is the thread's working directory once the
	// step runs.
	proc int
	// root is the step's root directory, once it runs.
	root int
	// upper is Start.Upper, -1 for none.
	upper int
	fast  *fast
	tags  tags

	text [pathMax]byte
	path [pathMax + 64]byte
	attr [64]byte
}

// Serve answers on the listener, which it owns, until no process is left that
// could ask, and returns how often each call was made. On error whoever makes a
// call that the filter hands over gets ENOSYS: the caller ends the step then.
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
		// Never unlocked: the thread has a root directory of its own and ends
		// with the step.
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
	// The thread is to have a root and a working directory of its own.
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
		// ENOENT: killed meanwhile. EINPROGRESS cannot be: nothing was answered.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer a system call: %w", err)
		}
	}
}

// wakesWhenDeserted tells whether receiving ends by itself when no process is left
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

// prepare answers while the container is made: what its first process does then is
// ours and not the step's. The user that it changes to, and gives its standard
// streams to, exists nowhere but here. Its first program is the step's.
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

// isFirst tells whether a process is number 1 of its namespace.
func (s *Supervisor) isFirst(pid int) (bool, error) {
	text, err := s.status(pid, "NSpid:")
	if err != nil {
		return false, err
	}
	f := bytes.Fields(text)
	return len(f) > 0 && string(f[len(f)-1]) == "1", nil
}

// begin takes the thread into the step's mount namespace. It stays out of the
// step's other namespaces: nothing in there can see or signal it.
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
	unix.Umask(0) // this thread's
	s.fast.run()
	return s.home()
}

// home makes the step's root the thread's.
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

// follow makes a thread's root directory this one's, until back is called.
func (s *Supervisor) follow(tid int) (back func()) {
	var buf [2]byte
	at := strconv.Itoa(tid) + "/root"
	if n, err := unix.Readlinkat(s.proc, at, buf[:]); err != nil || n == 1 && buf[0] == '/' {
		return func() {} // or it has ended
	}
	if err := unix.Chroot(at); err != nil {
		return func() {} // or it has ended
	}
	return func() {
		if err := s.home(); err != nil {
			panic(err)
		}
	}
}

// Stats counts the calls of a step by their numbers.
type Stats map[int]uint64

// Total is the number of calls.
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
