package frontend

import (
	"errors"
	"fmt"
)

// InputError says that what the user named as input cannot be used: there is
// no Dockerfile, a context is not a directory, a value does not parse.
type InputError struct {
	Err error
}

func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *InputError) Unwrap() error { return e.Err }

func inputErrorf(format string, args ...any) error {
	return &InputError{Err: fmt.Errorf(format, args...)}
}

// ErrUnsupported is wrapped by errors about a front end, a kind of source or
// a request that this builder does not know.
var ErrUnsupported = errors.New("not supported")
