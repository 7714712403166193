package fileop

import (
	"errors"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	bufferSize = 256 << 10
	// For files up to this size, read(2) and write(2) are as fast as copy_file_range(2).
	small = 64 << 10
	// piece is the maximum number of bytes of one call of copy_file_range(2).
	piece = 1 << 30
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// content copies the content of src to dst and keeps holes. If the file system supports
// it, the copy shares its blocks with src: copy_file_range(2) clones files on btrfs and
// XFS.
func (t *treeCopy) content(dst, src int, st unix.Stat_t) error {
	if st.Blocks*512 < st.Size {
		return t.sparse(dst, src)
	}
	if st.Size > small {
		if done, err := t.copyRange(dst, src, -1); done || err != nil {
			return err
		}
	}
	if st.Size > 0 && st.Size <= small {
		// Reading to EOF is not necessary, because the caller compares the size
		// afterwards.
		return readWrite(dst, src, st.Size)
	}
	return readWrite(dst, src, -1)
}

// sparse copies only the data between the holes.
func (t *treeCopy) sparse(dst, src int) error {
	var at int64
	for {
		data, err := unix.Seek(src, at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // the rest of the file is a hole
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(src, data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := t.extent(dst, src, data, hole-data); err != nil {
			return err
		}
		at = hole
	}
	end, err := unix.Seek(src, 0, unix.SEEK_END)
	if err != nil {
		return err
	}
	return unix.Ftruncate(dst, end)
}

func (t *treeCopy) extent(dst, src int, at, n int64) error {
	for _, fd := range []int{dst, src} {
		if _, err := unix.Seek(fd, at, unix.SEEK_SET); err != nil {
			return err
		}
	}
	if done, err := t.copyRange(dst, src, n); done || err != nil {
		return err
	}
	return readWrite(dst, src, n)
}

// copyRange copies n bytes in the kernel, or the rest of the file if n is negative. If
// the kernel cannot do that for these files, it returns false and has copied no data.
func (t *treeCopy) copyRange(dst, src int, n int64) (bool, error) {
	if t.noRange.Load() {
		return false, nil
	}
	for first := true; n != 0; first = false {
		want := int64(piece)
		if n > 0 {
			want = min(n, piece)
		}
		got, err := unix.CopyFileRange(src, nil, dst, nil, int(want), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && first:
			t.noRange.Store(true)
			return false, nil
		case err != nil:
			return false, err
		case got == 0 && first:
			// Some file systems return 0 instead of an error.
			return false, nil
		case got == 0:
			return true, nil
		}
		if n > 0 {
			n -= int64(got)
		}
	}
	return true, nil
}

// readWrite copies n bytes, or the rest of the file if n is negative.
func readWrite(dst, src int, n int64) error {
	buf, ok := buffers.Get().(*[bufferSize]byte)
	if !ok {
		buf = new([bufferSize]byte)
	}
	defer buffers.Put(buf)
	for n != 0 {
		part := buf[:]
		if n > 0 {
			part = part[:min(n, bufferSize)]
		}
		got, err := unix.Read(src, part)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if got == 0 {
			return nil
		}
		if err := writeAll(dst, part[:got]); err != nil {
			return err
		}
		if n > 0 {
			n -= int64(got)
		}
	}
	return nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
