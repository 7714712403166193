package frontend

import (
	"errors"
	"fmt"
)

// InputError is returned if an input that the user named cannot be used. For example,
// there is no Dockerfile, a context is not a directory, or a value does not parse.
type InputError struct {
	Err error
}

func (e *InputError) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *InputError) Unwrap() error { return e.Err }

func inputErrorf(format string, args ...any) error {
	return &InputError{Err: fmt.Errorf(format, args...)}
}

// ErrUnsupported is wrapped by errors about a front end, a type of source or a request
// that this builder does not support.
var ErrUnsupported = errors.New("not supported")
