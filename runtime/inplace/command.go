package inplace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is what a step runs.
type Command struct {
	Args []string
	Env  []string
	// Dir is the working directory; it must exist.
	Dir      string
	UID, GID uint32
	Groups   []uint32
	// Limits are of setrlimit(2), by the number of the resource.
	Limits map[int]Limit
	// Keep are the numbers of the capabilities that the command may have.
	Keep []int

	// Grace returns how long all processes of the command have after a SIGTERM
	// before they are killed, given the cause of the end of Run's context; 0 kills
	// at once, as does nil.
	Grace func(cause error) time.Duration `json:"-"`

	Stdin          io.Reader `json:"-"`
	Stdout, Stderr io.Writer `json:"-"`
}

// Limit is a soft and a hard limit.
type Limit struct{ Soft, Hard uint64 }

// StartError tells that the command could not be started; Code is the exit
// status that a shell would give.
type StartError struct {
	Code    int
	Message string
}

func (e *StartError) Error() string { return e.Message }

// Descriptors of the first process.
const (
	requestFD = 3
	reportFD  = 4
)

// report is what the first process says at its end.
type report struct {
	// Code is the exit status, 128 plus the number for a signal.
	Code int
	// Failure is set when the command did not start.
	Failure string
	// Broken is what the first process itself failed at.
	Broken string
}

// envInit makes the program a first process.
const envInit = "_SHALE_INPLACE_INIT"

// patience is how long the first process has to end what is running.
const patience = 10 * time.Second

// Run runs a command in the container and waits for it; what it leaves running
// is killed. The code is its exit status or 128 plus the number of the signal
// that ended it. When ctx ends everything is killed and its cause returned.
func Run(ctx context.Context, c Command) (int, error) {
	request, err := json.Marshal(c)
	if err != nil {
		return 0, fmt.Errorf("run in place: %w", err)
	}
	ours, theirs, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("run in place: %w", err)
	}
	in, err := requestFile(request)
	if err != nil {
		return 0, errors.Join(err, ours.Close(), theirs.Close())
	}
	var heard bytes.Buffer
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(&heard, ours)
		done <- err
	}()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{"shale-step"}
	cmd.Env = []string{envInit + "=1", "GOMAXPROCS=2"}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.ExtraFiles = []*os.File{in, theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return c.stop(cmd.Process, context.Cause(ctx)) }
	cmd.WaitDelay = patience
	err = cmd.Start()
	closeErr := errors.Join(in.Close(), theirs.Close())
	if err != nil {
		return 0, errors.Join(fmt.Errorf("run in place: %w", err), closeErr, ours.Close(), <-done)
	}
	waitErr := cmd.Wait()
	if err := errors.Join(<-done, ours.Close(), closeErr); err != nil {
		return 0, fmt.Errorf("run in place: %w", err)
	}
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	var r report
	if err := json.Unmarshal(heard.Bytes(), &r); err != nil {
		return 0, fmt.Errorf("run in place: the first process ended without a report: %w", errors.Join(waitErr, err))
	}
	switch {
	case r.Broken != "":
		return 0, fmt.Errorf("run in place: %s", r.Broken)
	case r.Failure != "":
		return r.Code, &StartError{Code: r.Code, Message: r.Failure}
	}
	return r.Code, nil
}

// Signals that the first process takes.
const (
	// askAll makes it send SIGTERM to all processes of the command.
	askAll = unix.SIGHUP
	// killAllNow makes it kill them. It is also what the builder's end gives.
	killAllNow = unix.SIGTERM
)

// stop has the first process end the command: at once, or after asking it and giving
// it some time.
func (c *Command) stop(first *os.Process, cause error) error {
	if c.Grace != nil {
		if grace := c.Grace(cause); grace > 0 {
			time.AfterFunc(grace, func() { _ = first.Signal(killAllNow) })
			return first.Signal(askAll)
		}
	}
	return first.Signal(killAllNow)
}

// requestFile holds the request in memory: it has the step's variables, some of
// which are secret.
func requestFile(request []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("request", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("run in place: %w", os.NewSyscallError("memfd_create", err))
	}
	f := os.NewFile(uintptr(fd), "request")
	if _, err := f.Write(request); err != nil {
		return nil, errors.Join(fmt.Errorf("run in place: %w", err), f.Close())
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, errors.Join(fmt.Errorf("run in place: %w", err), f.Close())
	}
	return f, nil
}

func exitCode(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
