package cachemount

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
)

// maxEntries is the maximum number of entries that Unpack accepts.
const maxEntries = 10_000_000

// Unpack extracts a tar that Pack has written into dir, which must be empty. size is the
// length of the tar in bytes. It returns an error if the tar is longer.
//
// The tar is not trusted: files outside of dir are not changed, and files that Pack
// leaves out are not created. Owners that are not mapped in this user namespace are
// recorded by owners, which may be nil. When Unpack returns, the files are on the disk
// (syncfs(2)).
func Unpack(ctx context.Context, r io.Reader, dir string, size int64, owners *recorded.Owners) error {
	if err := unpack(ctx, r, dir, size, owners.Fresh()); err != nil {
		return fmt.Errorf("unpack cache mount: %w", err)
	}
	return nil
}

func unpack(ctx context.Context, r io.Reader, dir string, size int64, owners *recorded.Owners) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a handle on a directory
	limited := &io.LimitedReader{R: r, N: size + 1}
	u := &unpacker{root: root, room: size, owners: owners}
	err = u.all(ctx, tar.NewReader(limited))
	if err == nil {
		// Read to the end, where the digest is verified.
		_, err = io.Copy(io.Discard, limited)
	}
	if limited.N == 0 {
		return fmt.Errorf("it has more than the %d bytes it is said to have", size)
	}
	if err != nil {
		return err
	}
	if err := u.finish(); err != nil {
		return err
	}
	if err := u.owners.SaveLinks(dir, Links(dir)); err != nil {
		return err
	}
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

type unpacker struct {
	root *os.Root
	// room is how many more bytes files may have. A sparse file has more bytes than its
	// data in the tar.
	room int64
	// dirs are completed after all their entries have been written.
	dirs []directory
	// owners receives the owners that can neither be set nor recorded in an attribute.
	owners *recorded.Owners
}

// directory contains the final metadata of a directory.
type directory struct {
	name     string
	uid, gid int
	mode     int64
	mtime    time.Time
}

func (u *unpacker) all(ctx context.Context, tr *tar.Reader) error {
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n == maxEntries {
			return fmt.Errorf("it has more than %d entries", maxEntries)
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if !filepath.IsLocal(name) {
		return errors.New("its name leads out of the mount")
	}
	if !isID(h.Uid) || !isID(h.Gid) {
		return fmt.Errorf("it belongs to %d:%d, which are no ids", h.Uid, h.Gid)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name, h)
	case tar.TypeReg:
		return u.file(name, h, r)
	case tar.TypeSymlink:
		return u.symlink(name, h)
	case tar.TypeLink:
		err := u.root.Link(path.Clean(h.Linkname), name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a link to a file that was left out
		}
		return err
	}
	return nil
}

// isID reports whether n is a possible uid or gid.
func isID(n int) bool { return n >= 0 && n < math.MaxUint32 }

func (u *unpacker) symlink(name string, h *tar.Header) error {
	if err := u.root.Symlink(h.Linkname, name); err != nil {
		return err
	}
	err := u.root.Lchown(name, h.Uid, h.Gid)
	if !unmapped(err) {
		return err
	}
	d, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	// Without a user namespace, other owners cannot be set. Ignore that.
	if err = u.owners.Chown(int(d.Fd()), path.Base(name), uint32(h.Uid), uint32(h.Gid)); unmapped(err) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

func (u *unpacker) dir(name string, h *tar.Header) error {
	if name != "." {
		if err := u.root.Mkdir(name, 0o700); err != nil {
			return err
		}
	}
	u.dirs = append(u.dirs, directory{name: name, uid: h.Uid, gid: h.Gid, mode: h.Mode, mtime: h.ModTime})
	if len(h.PAXRecords) == 0 {
		return nil
	}
	f, err := u.root.OpenFile(name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(setAttrs(f, h), f.Close())
}

func (u *unpacker) file(name string, h *tar.Header, r io.Reader) (err error) {
	if h.Mode&0o6000 != 0 {
		return nil
	}
	if u.room -= h.Size; u.room < 0 {
		return errors.New("it is larger than the whole is said to be")
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	if err := setAttrs(f, h); err != nil {
		return err
	}
	if err := u.setOwner(f, h.Uid, h.Gid, h.Mode); err != nil {
		return err
	}
	if err := f.Chmod(fs.FileMode(h.Mode & 0o777)); err != nil {
		return err
	}
	return u.root.Chtimes(name, time.Time{}, h.ModTime)
}

// finish sets the metadata of the directories, the innermost first.
func (u *unpacker) finish() error {
	for _, d := range slices.Backward(u.dirs) {
		if err := u.own(d); err != nil {
			return err
		}
		if err := u.root.Chmod(d.name, fileMode(d.mode)); err != nil {
			return err
		}
		if err := u.root.Chtimes(d.name, time.Time{}, d.mtime); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) own(d directory) error {
	f, err := u.root.OpenFile(d.name, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(u.setOwner(f, d.uid, d.gid, d.mode), f.Close())
}

// fileMode returns a directory's mode as an fs.FileMode.
func fileMode(mode int64) fs.FileMode {
	out := fs.FileMode(mode & 0o777)
	if mode&0o1000 != 0 {
		out |= fs.ModeSticky
	}
	if mode&0o2000 != 0 {
		out |= fs.ModeSetgid
	}
	return out
}
