package storage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	tarsplit "github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

// opener opens the files of a layer by their names in the tar.
type opener interface {
	open(name string) (io.ReadCloser, error)
}

// assembler puts a tar stream together. A tar-split entry is either a piece of the stream
// or the name of a file whose content comes next. The assembler never panics on damaged
// input, and it takes no more memory than one entry.
type assembler struct {
	entries *json.Decoder
	files   opener

	segment []byte        // rest of the current piece
	file    io.ReadCloser // current file, nil for none
	name    string
	left    int64 // bytes of file that are not read yet
	err     error
}

func newAssembler(recipe io.Reader, files opener) *assembler {
	return &assembler{entries: json.NewDecoder(recipe), files: files}
}

// Read fills p from several entries, because headers are short.
func (a *assembler) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		switch {
		case len(a.segment) > 0:
			c := copy(p[n:], a.segment)
			a.segment = a.segment[c:]
			n += c
		case a.file != nil:
			n += a.readFile(p[n:])
		case a.err != nil:
			if n > 0 {
				return n, nil
			}
			return 0, a.err
		default:
			a.err = a.next()
		}
	}
	return n, nil
}

func (a *assembler) readFile(p []byte) int {
	if int64(len(p)) > a.left {
		p = p[:a.left]
	}
	c, err := a.file.Read(p)
	a.left -= int64(c)
	if a.left == 0 {
		a.closeFile()
		return c
	}
	if err != nil {
		a.closeFile()
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %q is %d bytes short", ErrCorruptLayer, a.name, a.left)
		}
		a.err = err
	}
	return c
}

func (a *assembler) next() error {
	var e tarsplit.Entry
	if err := a.entries.Decode(&e); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("%w: tar-split: %w", ErrCorruptLayer, err)
	}
	switch e.Type {
	case tarsplit.SegmentType:
		a.segment = e.Payload
		return nil
	case tarsplit.FileType:
		return a.nextFile(e)
	}
	return fmt.Errorf("%w: tar-split has an entry of type %d", ErrCorruptLayer, e.Type)
}

func (a *assembler) nextFile(e tarsplit.Entry) error {
	if e.Size == 0 {
		return nil // an entry without content: the header has everything
	}
	if e.Size < 0 {
		return fmt.Errorf("%w: tar-split has a file of %d bytes", ErrCorruptLayer, e.Size)
	}
	a.name = e.GetName()
	f, err := a.files.open(a.name)
	if err != nil {
		return fmt.Errorf("%w: open %q: %w", ErrCorruptLayer, a.name, err)
	}
	a.file, a.left = f, e.Size
	return nil
}

func (a *assembler) closeFile() {
	if a.file != nil {
		_ = a.file.Close()
		a.file = nil
	}
}

// layerRoot opens regular files below a directory and never a file outside of it.
type layerRoot struct {
	dir *os.File
}

func openLayerRoot(dir string) (*layerRoot, error) {
	f, err := os.OpenFile(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open files of layer: %w", err)
	}
	return &layerRoot{dir: f}, nil
}

// Close closes the directory.
func (r *layerRoot) Close() error { return r.dir.Close() }

var errNotRegular = errors.New("not a regular file")

// open opens a regular file of a layer. It opens without blocking and then checks the
// type, because the name may belong to a FIFO or a device, which must not be read.
func (r *layerRoot) open(name string) (io.ReadCloser, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return nil, errNotRegular
	}
	fd, err := confine.Open(int(r.dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0,
		confine.Beneath|confine.NoSymlinks|confine.NoMagicLinks|confine.NoXDev)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		_ = unix.Close(fd)
		if err == nil {
			err = errNotRegular
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
