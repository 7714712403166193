package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
)

// Exit codes.
const (
	exitOK = 0
	// exitOwn is shale's own failure, as opposed to that of a step.
	exitOwn = 125
	// exitSignal is added to the number of the signal that ended shale.
	exitSignal = 128
)

// exitStatus is implemented by errors that carry the exit status of a RUN step
// or of a container.
type exitStatus interface{ ExitCode() int }

// exitCode maps the outcome of a command to shale's exit code.
func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if ended, ok := errors.AsType[signalError](context.Cause(ctx)); ok {
		return exitSignal + int(ended.signal)
	}
	// A program shale itself ran, such as newuidmap, is no step; nor is a
	// usage error of urfave/cli, which has the method too but no wish to be
	// an exit code.
	var own *exec.ExitError
	var status exitStatus
	if errors.As(err, &own) || !errors.As(err, &status) {
		return exitOwn
	}
	if code := status.ExitCode(); code > 0 && code < 256 {
		return code
	}
	return exitOwn
}

// statusError is the exit status of a container; the container has said what
// there is to say.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode is the status.
func (e statusError) ExitCode() int { return int(e) }

// report tells the user about err, once.
func report(ctx context.Context, w io.Writer, err error) {
	var status statusError
	var told toldError
	switch usage, isUsage := isUsageError(err); {
	case err == nil, errors.As(err, &status), errors.As(err, &told):
	case isUsage:
		_, _ = fmt.Fprintf(w, "shale: %s\n%s\n", usage.Message, usage.Hint())
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		_, _ = fmt.Fprintf(w, "shale: %v\n", context.Cause(ctx))
	default:
		_, _ = fmt.Fprintf(w, "shale: %v\n", err)
	}
}

// toldError is an error the user has been told about.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }
