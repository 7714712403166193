package frontend

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	"golang.org/x/sys/unix"
)

// MaxFile is the maximum size in bytes of Dockerfiles and ignore files. The front end has
// the same limit.
const MaxFile = 16 << 20

// OpenDir returns the directory dir as a Root. Its Close calls release, which may be nil.
func OpenDir(dir string, release func() error) (Root, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &dirRoot{dir: f, release: release}, nil
}

type dirRoot struct {
	dir     *os.File
	release func() error
}

// open resolves name with RESOLVE_IN_ROOT (openat2(2), since Linux 5.6; emulated on older
// kernels). The file is opened with O_PATH, so that open does not block on a FIFO and
// does not access a device.
func (r *dirRoot) open(name string) (*os.File, fs.FileInfo, error) {
	f, err := pathrs.OpenatInRoot(r.dir, name)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, nil, &fs.PathError{Op: "stat", Path: name, Err: cause(err)}
	}
	return f, info, nil
}

// cause removes the paths of nested errors, because they name internal file descriptors
// and directories.
func cause(err error) error {
	for {
		perr, ok := errors.AsType[*fs.PathError](err)
		if !ok {
			return err
		}
		err = perr.Err
	}
}

func (r *dirRoot) ReadFile(name string, offset, length int64) ([]byte, error) {
	handle, info, err := r.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	return readHandle(handle, info, name, offset, length)
}

func (r *dirRoot) StatFile(name string) (fs.FileInfo, error) {
	f, info, err := r.open(name)
	if err != nil {
		return nil, err
	}
	return info, f.Close()
}

func (r *dirRoot) ReadDir(name string) ([]fs.FileInfo, error) {
	handle, _, err := r.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = handle.Close() }()
	f, err := pathrs.Reopen(handle, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: cause(err)}
	}
	defer func() { _ = f.Close() }()
	return f.Readdir(-1)
}

func (r *dirRoot) Close() error {
	err := r.dir.Close()
	if r.release != nil {
		err = errors.Join(err, r.release())
	}
	return err
}

// readHandle reads from an O_PATH file descriptor if info shows a regular file.
func readHandle(handle *os.File, info fs.FileInfo, name string, offset, length int64) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: notRegular(info)}
	}
	f, err := pathrs.Reopen(handle, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	}
	defer func() { _ = f.Close() }()
	return readRange(f, offset, length)
}

var errPipe = errors.New("is a pipe, not a regular file")

func notRegular(info fs.FileInfo) error {
	kind := "a special file"
	switch {
	case info.Mode()&fs.ModeNamedPipe != 0:
		return errPipe
	case info.IsDir():
		kind = "a directory"
	case info.Mode()&fs.ModeSocket != 0:
		kind = "a socket"
	case info.Mode()&fs.ModeDevice != 0:
		kind = "a device"
	}
	return fmt.Errorf("is %s, not a regular file", kind)
}

// readRange reads like Root.ReadFile. Both bounds may be beyond the end of the file.
func readRange(r io.ReaderAt, offset, length int64) ([]byte, error) {
	if offset < 0 || length < 0 {
		return nil, fmt.Errorf("read of %d bytes at %d", length, offset)
	}
	if length == 0 {
		length = 1<<63 - 1 - offset
	}
	return io.ReadAll(io.NewSectionReader(r, offset, length))
}

// memRoot is a Root that holds a few files in memory and has no directories.
type memRoot map[string][]byte

func (r memRoot) lookup(name string) (string, []byte, error) {
	base := path.Clean("/" + name)[1:]
	data, ok := r[base]
	if !ok {
		return "", nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return base, data, nil
}

func (r memRoot) ReadFile(name string, offset, length int64) ([]byte, error) {
	_, data, err := r.lookup(name)
	if err != nil {
		return nil, err
	}
	if offset < 0 || length < 0 {
		return nil, fmt.Errorf("read of %d bytes at %d", length, offset)
	}
	data = data[min(offset, int64(len(data))):]
	if length > 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return append([]byte{}, data...), nil
}

func (r memRoot) StatFile(name string) (fs.FileInfo, error) {
	base, data, err := r.lookup(name)
	if err != nil {
		return nil, err
	}
	return memInfo{name: base, size: int64(len(data))}, nil
}

func (r memRoot) ReadDir(string) ([]fs.FileInfo, error) {
	infos := make([]fs.FileInfo, 0, len(r))
	for name, data := range r {
		infos = append(infos, memInfo{name: name, size: int64(len(data))})
	}
	return infos, nil
}

func (memRoot) Close() error { return nil }

type memInfo struct {
	name string
	size int64
}

func (i memInfo) Name() string     { return i.name }
func (i memInfo) Size() int64      { return i.size }
func (memInfo) Mode() fs.FileMode  { return 0o644 }
func (memInfo) ModTime() time.Time { return time.Time{} }
func (memInfo) IsDir() bool        { return false }
func (memInfo) Sys() any           { return nil }

var (
	_ Root = (*dirRoot)(nil)
	_ Root = memRoot(nil)
)
