package exec

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrTerminated is a cause for cancelling a context. It requests an orderly end: running
// steps get SIGTERM and have stepGrace to end before they are killed. For any other cause
// they are killed at once.
var ErrTerminated = errors.New("terminated")

// stepGrace is the time between SIGTERM and SIGKILL.
const stepGrace = 3 * time.Second

// grace is the Grace function of sandbox.Spec.
func grace(cause error) time.Duration {
	if errors.Is(cause, ErrTerminated) {
		return stepGrace
	}
	return 0
}

// ExitError is returned if the process of a RUN step failed or could not be started.
type ExitError struct {
	Args []string
	// Code is the exit status. If signal n killed the process, it is 128+n.
	Code int
	// Reason is the error because of which the process could not be started. It is "" if
	// the process was started.
	Reason string
	// Hint is advice for the user, or "".
	Hint string
}

// Error returns the message that docker shows, because users search the web for it.
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

// ExitCode returns the exit status of the whole build.
func (e *ExitError) ExitCode() int { return e.Code }

// UnsupportedError is returned if a part of the operation is not supported.
type UnsupportedError struct {
	// What names the part as the Dockerfile does, for example "RUN --device".
	What string
	// Why names an alternative or the missing prerequisite.
	Why string
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s is not available: %s", e.What, e.Why)
}
