package overlay

import (
	"errors"
	"fmt"
)

// MaxLowers is the largest number of lower directories that the kernel accepts in one
// overlay (OVL_MAX_STACK).
const MaxLowers = 500

var (
	// ErrTooManyLowers is returned for a Mount with more than MaxLowers lower
	// directories.
	ErrTooManyLowers = fmt.Errorf("more than %d lower directories: the kernel's limit for one overlay", MaxLowers)
	// ErrInvalidMount is returned for a Mount that no kernel can mount, for example one
	// with a relative path.
	ErrInvalidMount = errors.New("invalid mount")
	// ErrNotMounted is returned by Unmount if the target is not a mount point.
	ErrNotMounted = errors.New("not a mount point")

	// errNoAppend is returned if the kernel, or a seccomp filter, does not accept lower
	// directories one at a time.
	errNoAppend = errors.New("kernel does not append lower directories one by one")
)
