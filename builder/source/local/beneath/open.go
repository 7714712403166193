package beneath

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

// ErrNotRegular tells that a path names something else than a regular file.
var ErrNotRegular = errors.New("not a regular file")

// resolveFlags refuse every way out of the root and every link.
const resolveFlags = confine.Beneath | confine.NoSymlinks | confine.NoMagicLinks

// OpenRoot opens dir, whose own path may contain links, to be a root.
func OpenRoot(dir string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Open opens rel below root. rel is relative, clean and free of links, as
// Resolve returns it; a link anywhere in it, the last component included,
// fails with ELOOP unless flags hold O_PATH and O_NOFOLLOW, which open the last
// component itself. The caller closes the descriptor.
func Open(root int, rel string, flags int, perm uint32) (int, error) {
	fd, err := confine.Open(root, rel, flags, perm, resolveFlags)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	return fd, nil
}

// OpenRegular opens the regular file that name means inside root, following
// links there, for reading. Anything else is refused with ErrNotRegular before
// it is opened: opening a device acts on it and opening a FIFO may never
// return.
func OpenRegular(root int, name string) (*os.File, error) {
	rel, err := Resolve(root, name, true)
	if err != nil {
		return nil, err
	}
	return OpenRegularAt(root, rel)
}

// OpenRegularAt is OpenRegular for a resolved path.
func OpenRegularAt(root int, rel string) (*os.File, error) {
	probe, err := Open(root, rel, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	err = checkRegular(probe, rel)
	_ = unix.Close(probe)
	if err != nil {
		return nil, err
	}
	fd, err := Open(root, rel, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(fd, rel); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "/"+rel), nil
}

func checkRegular(fd int, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: "/" + rel, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("open /%s: %w", rel, ErrNotRegular)
	}
	return nil
}

func retry(open func() (int, error)) (int, error) {
	for {
		fd, err := open()
		// EAGAIN is openat2's answer to a rename beside it.
		if err != unix.EINTR && err != unix.EAGAIN { //nolint:errorlint // a bare errno
			return fd, err
		}
	}
}
