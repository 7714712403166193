package diff

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// shownPath is the number of bytes that an error shows of each end of a long path.
const shownPath = 128

// shown shortens a path for an error. A step can create paths of many kilobytes.
func shown(name string) string {
	if len(name) <= 2*shownPath {
		return name
	}
	return fmt.Sprintf("%s[... %d bytes ...]%s", name[:shownPath], len(name)-2*shownPath, name[len(name)-shownPath:])
}

// atPath adds the operation op and the file name to err. name is a path from the root of
// the layer. op may be "".
func atPath(op, name string, err error) error {
	if op != "" {
		op += " "
	}
	if errors.Is(err, unix.EMFILE) {
		err = fmt.Errorf("%w: each directory on the way to a file takes a descriptor (see ulimit -n)", err)
	}
	return fmt.Errorf("%s/%s: %w", op, shown(name), err)
}
