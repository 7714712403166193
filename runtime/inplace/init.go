package inplace

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/procs"
)

// init runs the first process of a step. Every process that the command starts becomes
// its child if the parent ends (PR_SET_CHILD_SUBREAPER in prctl(2)).
func init() {
	if os.Getenv(envInit) == "" {
		return
	}
	runtime.LockOSThread()
	r := first()
	out := os.NewFile(reportFD, "report")
	_ = json.NewEncoder(out).Encode(r)
	os.Exit(0) //nolint:forbidigo // a process of our own, which has no main
}

func first() report {
	in := os.NewFile(requestFD, "request")
	var c Command
	err := errors.Join(json.NewDecoder(in).Decode(&c), in.Close())
	unix.CloseOnExec(reportFD)
	if err == nil {
		err = errors.Join(
			os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)),
			// This process must end when the builder ends. Other processes must not
			// inspect it, because it is the parent of the command.
			os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(killAllNow), 0, 0, 0)),
			os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)))
	}
	if err != nil {
		return report{Broken: err.Error()}
	}
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, askAll, killAllNow)
	if err := restrict(&c); err != nil {
		return report{Broken: err.Error()}
	}
	pid, failure := start(&c)
	if failure != nil {
		return report{Code: failure.Code, Failure: failure.Message}
	}
	return report{Code: await(pid, stop)}
}

// restrict sets the limits and capabilities of this process, which the command inherits.
// CAP_SETPCAP is always dropped. The other processes of the container have it, so a step
// without it can neither trace them nor read their memory, environment and file
// descriptors (cap_ptrace_access_check in the kernel's security/commoncap.c). Otherwise a
// step could take over the shell of a CI job. That shell has logins in its environment
// and runs the commands that follow. If the container itself lacks CAP_SETPCAP, this
// protection does not exist.
func restrict(c *Command) error {
	unix.Umask(0o022)
	keep := map[int]bool{}
	for _, n := range c.Keep {
		keep[n] = n != unix.CAP_SETPCAP
	}
	for n := 0; n <= unix.CAP_LAST_CAP; n++ {
		if keep[n] {
			continue
		}
		// EINVAL: the kernel does not know this capability. EPERM: the process lacks
		// CAP_SETPCAP, so it cannot drop the capability.
		err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("give up capability %d: %w", n, err)
		}
	}
	if err := inheritNothing(); err != nil {
		return err
	}
	for resource, l := range c.Limits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard}); err != nil {
			return fmt.Errorf("set limit %d: %w", resource, err)
		}
	}
	return nil
}

// inheritNothing clears the inheritable capabilities of this thread, from which start
// forks the command. A program that root executes gets them, even those that are not in
// the bounding set. Docker before 20.10.14 sets some.
func inheritNothing() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return os.NewSyscallError("capset", unix.Capset(&hdr, &data[0]))
}

// start starts the command and returns its process id.
func start(c *Command) (int, *StartError) {
	program, err := lookUp(c)
	if err != nil {
		return 0, startError(c.Args[0], err)
	}
	groups := c.Groups
	if groups == nil {
		groups = []uint32{}
	}
	pid, err := syscall.ForkExec(program, c.Args, &syscall.ProcAttr{
		Dir: c.Dir, Env: c.Env, Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{
			Credential: &syscall.Credential{Uid: c.UID, Gid: c.GID, Groups: groups},
			Pdeathsig:  unix.SIGKILL, Setsid: true,
		},
	})
	if err != nil {
		return 0, startError(c.Args[0], err)
	}
	return pid, nil
}

// startError returns the error message that libcontainer has for err, because docker
// shows that message.
func startError(name string, err error) *StartError {
	e := &StartError{Code: 126, Message: fmt.Sprintf("exec: %q: %s", name, reason(err))}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, unix.ENOENT) {
		e.Code = 127
	}
	return e
}

func reason(err error) string {
	if errors.Is(err, exec.ErrNotFound) {
		return "executable file not found in $PATH"
	}
	if path, ok := errors.AsType[*os.PathError](err); ok {
		return path.Op + " " + path.Path + ": " + path.Err.Error()
	}
	return err.Error()
}

// lookUp returns the path of the program. It searches as execvp(3) does, but with the
// PATH of the command and relative to its directory.
func lookUp(c *Command) (string, error) {
	name := c.Args[0]
	if strings.Contains(name, "/") {
		at := name
		if !filepath.IsAbs(at) {
			at = filepath.Join(c.Dir, name)
		}
		return at, runnable(at)
	}
	path := ""
	for _, kv := range c.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for dir := range strings.SplitSeq(path, ":") {
		at := filepath.Join(dir, name)
		if !filepath.IsAbs(at) {
			at = filepath.Join(c.Dir, at)
		}
		if runnable(at) == nil {
			return at, nil
		}
	}
	return "", exec.ErrNotFound
}

func runnable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return &os.PathError{Op: "exec", Path: path, Err: unix.EISDIR}
	case info.Mode()&0o111 == 0:
		return &os.PathError{Op: "exec", Path: path, Err: unix.EACCES}
	}
	return nil
}

// await reaps child processes until the command has ended, and returns its exit status.
// Then it kills all remaining processes.
func await(pid int, stop <-chan os.Signal) int {
	ended := make(chan int, 1)
	go func() {
		for {
			var ws unix.WaitStatus
			got, err := unix.Wait4(-1, &ws, 0, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				ended <- 255
				return
			}
			if got == pid {
				ended <- exitCode(ws)
				return
			}
		}
	}()
	code := obey(ended, stop)
	for end := time.Now().Add(patience); killAll() > 0 && time.Now().Before(end); {
		reap()
		time.Sleep(time.Millisecond)
	}
	return code
}

// obey handles the builder's signals until the command has ended. It returns the exit
// status.
func obey(ended <-chan int, stop <-chan os.Signal) int {
	for {
		select {
		case code := <-ended:
			return code
		case s := <-stop:
			if s == askAll {
				procs.SignalAll(os.Getpid(), unix.SIGTERM)
				continue
			}
			killAll()
			return <-ended
		}
	}
}

func reap() {
	for {
		var ws unix.WaitStatus
		if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); err != nil || pid <= 0 {
			return
		}
	}
}

// killAll kills all descendants of this process and returns their number. It may miss
// processes that start meanwhile. The next call finds them, because every process whose
// parents have ended becomes a child of this process.
func killAll() int { return procs.SignalAll(os.Getpid(), unix.SIGKILL) }
