package fileop

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
)

// unpack unpacks e to the destination if it is a tar archive, compressed or not. It
// reports whether e is an archive. The content decides, not the file name.
func (c *copying) unpack(ctx context.Context, e *local.Entry) (bool, error) {
	st := e.Stat()
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, nil
	}
	f, err := e.Open()
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	if !isArchive(f) {
		return false, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false, fmt.Errorf("rewind %s: %w", e.Path(), err)
	}
	return true, c.extract(ctx, f, e.Path())
}

// isArchive reports whether r starts with a tar header.
func isArchive(r io.Reader) bool {
	content, err := decompress(r)
	if err != nil {
		return false
	}
	defer func() { _ = content.Close() }()
	_, err = tar.NewReader(content).Next()
	return err == nil || errors.Is(err, tar.ErrInsecurePath)
}

// extract creates the destination directory and unpacks the archive there. The paths and
// links of the archive are resolved inside the destination, not inside the root file
// system.
func (c *copying) extract(ctx context.Context, f *os.File, name string) (err error) {
	rel, err := c.dst.resolve(c.to)
	if err != nil {
		return err
	}
	mode := uint32(0o755)
	made, err := c.dst.mkdirAll(rel, attrs{owner: c.owner, mode: &mode})
	if err != nil {
		return err
	}
	fd, err := c.dst.openDir(rel)
	if err != nil {
		return err
	}
	at := &root{
		dir: path.Join(c.dst.dir, rel), f: os.NewFile(uintptr(fd), rel),
		chown: c.dst.chown, mknod: c.dst.mknod, part: c.dst.part, made: c.dst.made,
	}
	defer func() { err = errors.Join(err, at.close()) }()
	content, err := decompress(f)
	if err != nil {
		return fmt.Errorf("decompress %s: %w", name, err)
	}
	defer func() { _ = content.Close() }()
	x := &extractor{at: at, owner: c.owner, logger: c.logger}
	if err := x.all(ctx, tar.NewReader(content)); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return c.dst.setTimesOf(made, stamp(c.a.GetTimestamp()))
}
