package exec

import (
	"fmt"
	"strings"
)

// ExitError is a RUN whose process failed.
type ExitError struct {
	Args []string
	// Code is the exit status, 128+n after signal n.
	Code int
	// Reason says why the process did not even start, "" if it did.
	Reason string
}

// Error says it in docker's words, which people search the web for.
func (e *ExitError) Error() string {
	if e.Reason != "" {
		return fmt.Sprintf("process %q could not be started: %s", strings.Join(e.Args, " "), e.Reason)
	}
	return fmt.Sprintf("process %q did not complete successfully: exit code: %d", strings.Join(e.Args, " "), e.Code)
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
