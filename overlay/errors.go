package overlay

import (
	"errors"
	"fmt"
)

// MaxLowers is the largest number of lower directories the kernel stacks in
// one overlay (OVL_MAX_STACK).
const MaxLowers = 500

var (
	// ErrTooManyLowers is returned for a stack deeper than MaxLowers.
	ErrTooManyLowers = fmt.Errorf("more than %d lower directories: the kernel's limit for one overlay", MaxLowers)
	// ErrInvalidMount is returned for a Mount that no kernel could serve.
	ErrInvalidMount = errors.New("invalid mount")
	// ErrNotMounted is returned by Unmount when nothing is mounted at the
	// target.
	ErrNotMounted = errors.New("not a mount point")

	// errNoAppend says that this kernel, or a filter in front of it, does not
	// take lower directories one by one.
	errNoAppend = errors.New("kernel does not append lower directories one by one")
)
