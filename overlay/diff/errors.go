package diff

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// shownPath is how many bytes of either end of a long path an error shows.
const shownPath = 128

// shown returns the path for an error. A step can make paths of many kilobytes.
func shown(name string) string {
	if len(name) <= 2*shownPath {
		return name
	}
	return fmt.Sprintf("%s[... %d bytes ...]%s", name[:shownPath], len(name)-2*shownPath, name[len(name)-shownPath:])
}

// atPath adds to an error the file that it is about, a path from the root of the
// layer, and the operation, which may be "".
func atPath(op, name string, err error) error {
	if op != "" {
		op += " "
	}
	if errors.Is(err, unix.EMFILE) {
		err = fmt.Errorf("%w: each directory on the way to a file takes a descriptor (see ulimit -n)", err)
	}
	return fmt.Errorf("%s/%s: %w", op, shown(name), err)
}
