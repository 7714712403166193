package diff

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// openAt opens an entry of a directory for reading. It never follows a symbolic link, and
// does not block if the entry has become a FIFO. If the owner allows it, it uses
// O_NOATIME to save the write of the access time.
func openAt(dir int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err := retry(func() (int, error) { return unix.Openat(dir, name, flags|unix.O_NOATIME, 0) })
	if errors.Is(err, unix.EPERM) {
		fd, err = retry(func() (int, error) { return unix.Openat(dir, name, flags, 0) })
	}
	return fd, err
}

// retry repeats a call that was interrupted by a signal.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// load fills in the header of a regular file. If the contents fit into buf, it also reads
// them. It returns the number of bytes of buf that it used.
func (e *entry) load(buf []byte, prefix string, owners Owners) (int, error) {
	fd, err := openAt(e.dir.fd, e.base, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	if err := unix.Fstat(fd, &e.stat); err != nil {
		return 0, err
	}
	if e.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, ErrChanged
	}
	attrs, err := readXattrs(fd, prefix, fileXattrs)
	if err != nil {
		return 0, err
	}
	if attrs.reference {
		return 0, ErrNotSelfContained
	}
	if attrs.whiteout && e.stat.Size == 0 {
		return 0, e.becomeWhiteout()
	}
	if err := asRecorded(owners, attrs, fd, &e.stat); err != nil {
		return 0, err
	}
	if err := e.describe("", attrs.records); err != nil {
		return 0, err
	}
	if e.stat.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, nil // an empty file that represents a device
	}
	e.size = e.stat.Size
	if e.size == 0 || e.size > prefetchMax || e.size > int64(len(buf)) {
		return 0, nil
	}
	e.data = buf[:e.size:e.size]
	if err := readFull(fd, e.data); err != nil {
		return 0, err
	}
	e.sum = updateCRC(0, e.data)
	return len(e.data), nil
}

// reopen opens a file if its contents were not read ahead. It returns ErrChanged if the
// file is not the same as before.
func (e *entry) reopen() (int, error) {
	fd, err := openAt(e.dir.fd, e.base, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if inodeOf(&st) != inodeOf(&e.stat) || st.Size != e.size {
		return -1, errors.Join(ErrChanged, unix.Close(fd))
	}
	return fd, nil
}

// readFull fills buf from the file. It returns ErrChanged if the file is shorter.
func readFull(fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := readSome(fd, buf)
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

// readSome reads at least one byte. It returns ErrChanged at the end of the file.
func readSome(fd int, buf []byte) (int, error) {
	n, err := retry(func() (int, error) { return unix.Read(fd, buf) })
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, fmt.Errorf("%w: %w", ErrChanged, io.ErrUnexpectedEOF)
	}
	return n, nil
}
