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

// Command describes the command of a step. It runs with the ids UID, GID and Groups.
// Stdin, Stdout and Stderr may be nil, as in exec.Cmd.
type Command struct {
	// Args holds the program and its arguments and must not be empty. Env is the complete
	// environment. The program is looked up as in execvp(3), with PATH of Env and
	// relative to Dir.
	Args []string
	Env  []string
	// Dir is the working directory. It must exist.
	Dir      string
	UID, GID uint32
	Groups   []uint32
	// Limits maps resource numbers of setrlimit(2), for example RLIMIT_NOFILE, to limits.
	Limits map[int]Limit
	// Keep lists the capabilities that stay in the bounding set of the command.
	// CAP_SETPCAP is always dropped.
	Keep []int

	// Grace returns the time between SIGTERM and SIGKILL if the context of Run ends.
	// SIGTERM goes to all processes of the command. The argument is the cause of the end.
	// If Grace is nil or returns 0, the processes are killed at once. The time must be
	// shorter than 10 seconds (patience).
	Grace func(cause error) time.Duration `json:"-"`

	Stdin          io.Reader `json:"-"`
	Stdout, Stderr io.Writer `json:"-"`
}

// Limit is the soft and the hard limit of one resource.
type Limit struct{ Soft, Hard uint64 }

// StartError is returned by Run if the command could not be started. Code is the exit
// status that a shell would return: 127 if the program does not exist, otherwise 126.
type StartError struct {
	Code    int
	Message string
}

func (e *StartError) Error() string { return e.Message }

// File descriptors of the first process.
const (
	requestFD = 3
	reportFD  = 4
)

// report is the message of the first process to the builder. It is sent when the command
// has ended.
type report struct {
	// Code is the exit status of the command. It is 128 plus the signal number if a
	// signal ended the command.
	Code int
	// Failure is the error message if the command could not be started.
	Failure string
	// Broken is the error message if the first process itself failed.
	Broken string
}

// envInit is set in the environment of a first process.
const envInit = "_SHALE_INPLACE_INIT"

// patience limits the time in which the first process kills remaining processes. It is
// also the time after which Run kills the first process if ctx has ended.
const patience = 10 * time.Second

// Run runs a command in the container and waits for it. When the command ends, Run kills
// the processes that it left running. Run returns the exit status of the command, or 128
// plus the number of the signal that ended it. If the command cannot be started, Run
// returns a *StartError. If ctx ends, Run stops the command as Command.Grace says and
// returns the cause of ctx. All other errors are failures of the first process or of the
// builder.
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

// Signals that the builder sends to the first process.
const (
	// askAll requests a SIGTERM for all processes of the command.
	askAll = unix.SIGHUP
	// killAllNow requests a SIGKILL for all processes of the command. The kernel also
	// sends it to the first process when the builder ends.
	killAllNow = unix.SIGTERM
)

// stop makes the first process end the command. If Grace returns a time above 0, the
// processes first receive SIGTERM and are killed after that time. Otherwise they are
// killed at once.
func (c *Command) stop(first *os.Process, cause error) error {
	if c.Grace != nil {
		if grace := c.Grace(cause); grace > 0 {
			time.AfterFunc(grace, func() { _ = first.Signal(killAllNow) })
			return first.Signal(askAll)
		}
	}
	return first.Signal(killAllNow)
}

// requestFile returns a file in memory that contains the request. The request must not
// reach a disk, because it contains the step's environment, which may have secrets.
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
