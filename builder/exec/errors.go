package exec

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrTerminated is, for the cause of a cancelled context, a wish for an orderly end:
// running steps get SIGTERM and some time before they are killed. After any other cause
// they are killed at once.
var ErrTerminated = errors.New("terminated")

// stepGrace is how long a step has after SIGTERM.
const stepGrace = 3 * time.Second

// grace is that of sandbox.Spec.
func grace(cause error) time.Duration {
	if errors.Is(cause, ErrTerminated) {
		return stepGrace
	}
	return 0
}

// ExitError is a RUN whose process failed.
type ExitError struct {
	Args []string
	// Code is the exit status, 128+n after signal n.
	Code int
	// Reason says why the process did not even start, "" if it did.
	Reason string
	// Hint says what may help, "" if nothing is known.
	Hint string
}

// Error says it in docker's words, which people search the web for.
func (e *ExitError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("process %q could not be started: %s", strings.Join(e.Args, " "), e.Reason)
	}
	text := fmt.Sprintf("process %q did not complete successfully: exit code: %d", strings.Join(e.Args, " "), e.Code)
	if e.Hint != "" {
		text += ": " + e.Hint
	}
	return text
}

// ExitCode is what the whole build exits with.
func (e *ExitError) ExitCode() int { return e.Code }

// UnsupportedError is a part of the operation that cannot be carried out.
type UnsupportedError struct {
	// What names it as the Dockerfile does: "RUN --device".
	What string
	// Why says what to do instead, or what is missing.
	Why string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s is not available: %s", e.What, e.Why)
}
