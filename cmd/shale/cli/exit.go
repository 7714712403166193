package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/storage"
)

// Exit codes of shale.
const (
	exitOK = 0
	// exitOwn is the code if shale itself failed, and not a step.
	exitOwn = 125
	// exitSignal is added to the number of the signal that ended shale.
	exitSignal = 128
)

// exitCode returns the exit code of shale for a command that returned err.
func exitCode(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if ended, ok := errors.AsType[signalError](context.Cause(ctx)); ok {
		return exitSignal + int(ended.signal)
	}
	// Only errors of this project have an exit status of their own. The *exec.ExitError of a
	// program that shale itself ran, for example newuidmap, and the errors of the library of
	// flags have an ExitCode method, too. A FullError may be about a step that failed.
	code := 0
	if full, ok := errors.AsType[*storage.FullError](err); ok {
		code = full.ExitCode()
	} else if container, ok := errors.AsType[exitError](err); ok {
		code = container.ExitCode()
	} else if status, ok := errors.AsType[statusError](err); ok {
		code = status.ExitCode()
	} else if step, ok := errors.AsType[*exec.ExitError](err); ok {
		code = step.ExitCode()
	}
	if code > 0 && code < 256 {
		return code
	}
	return exitOwn
}

// statusError is the exit status of a container or a report. It is not printed, because
// the container or the report has already printed its messages.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitCode returns the status.
func (e statusError) ExitCode() int { return int(e) }

// report prints err, unless the user has already seen its message.
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

// toldError is an error with a message that the user has already seen.
type toldError struct{ error }

func (e toldError) Unwrap() error { return e.error }
