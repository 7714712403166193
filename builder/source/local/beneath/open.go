package beneath

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

// ErrNotRegular is returned if a path is not a regular file.
var ErrNotRegular = errors.New("not a regular file")

// resolveFlags prevent leaving the root and following symbolic links.
const resolveFlags = confine.Beneath | confine.NoSymlinks | confine.NoMagicLinks

// OpenRoot opens the directory dir as a root. The path dir itself may contain symbolic
// links. The caller must close the root.
func OpenRoot(dir string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// Open opens the path rel below root. rel must be relative, clean and free of symbolic
// links, as Resolve returns it. Open fails with ELOOP if any component is a symbolic
// link. If flags contain O_PATH and O_NOFOLLOW, the last component may be a symbolic
// link, which is then opened itself. The caller must close the file descriptor.
func Open(root int, rel string, flags int, perm uint32) (int, error) {
	fd, err := confine.Open(root, rel, flags, perm, resolveFlags)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/" + rel, Err: err}
	}
	return fd, nil
}

// OpenRegular opens the regular file name inside root for reading. It follows symbolic
// links inside root. For any other type of file it returns ErrNotRegular without opening
// it, because opening a device may have effects and opening a FIFO may block.
func OpenRegular(root int, name string) (*os.File, error) {
	rel, err := Resolve(root, name, true)
	if err != nil {
		return nil, err
	}
	return OpenRegularAt(root, rel)
}

// OpenRegularAt is like OpenRegular for a path that Resolve returned.
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
		// openat2(2) returns EAGAIN if a rename happens at the same time.
		if err != unix.EINTR && err != unix.EAGAIN { //nolint:errorlint // a bare errno
			return fd, err
		}
	}
}
