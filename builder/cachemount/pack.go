package cachemount

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/filelock"
	"github.com/shale-build/shale/runtime/recorded"
)

// ErrInUse is returned by Hold if steps use the cache mount all the time.
var ErrInUse = errors.New("a step is using it")

// patience is how long Hold waits for steps of other builds.
const patience = 10 * time.Second

// Hold locks a cache mount until the lease is released, so that no step is writing to it.
// It returns ErrInUse if steps still hold the lock after 10 seconds, and fs.ErrNotExist
// if the cache mount has been removed.
func (c *Caches) Hold(ctx context.Context, m Mount) (*Lease, error) {
	lock, err := os.OpenFile(m.dir+"/lock", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("lock cache mount %q: %w", m.ID, err)
	}
	wait, stop := context.WithTimeoutCause(ctx, patience, ErrInUse)
	defer stop()
	if err := filelock.Lock(wait, lock, filelock.Exclusive); err != nil {
		return nil, errors.Join(fmt.Errorf("lock cache mount %q: %w", m.ID, err), lock.Close())
	}
	lease := &Lease{Dir: m.dir + "/data", lock: lock}
	if _, err := os.Lstat(lease.Dir); err != nil {
		return nil, errors.Join(fmt.Errorf("lock cache mount %q: %w", m.ID, err), lease.Release())
	}
	return lease, nil
}

// Pack writes the content of dir as a tar. The caller must ensure that dir is not in use,
// see Hold.
//
// The tar is the same for the same content: names are sorted and the times of files have
// nanoseconds. Owners are ids of this user namespace. If it has only one id, they are the
// recorded owners. owners is that of the build, or nil if no owners are recorded.
//
// Pack returns the number of files that it leaves out: devices, sockets, FIFOs, and
// programs with set-id bits or capabilities. On another machine these would have an
// effect beyond their content, and a cache does not need them.
func Pack(ctx context.Context, dir string, w io.Writer, owners *recorded.Owners) (left int, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, fmt.Errorf("pack cache mount: %w", err)
	}
	defer root.Close() //nolint:errcheck // only reads
	p := &packer{ctx: ctx, tar: tar.NewWriter(w), links: map[[2]uint64]string{}, owners: owners.Fresh()}
	err = p.owners.RestoreLinks(Links(dir))
	if err == nil {
		err = p.dir(root, "")
	}
	if err := errors.Join(err, p.tar.Close()); err != nil {
		return p.left, fmt.Errorf("pack cache mount: %w", err)
	}
	return p.left, nil
}

type packer struct {
	ctx  context.Context //nolint:containedctx // lives for one Pack
	tar  *tar.Writer
	left int
	// links maps the inodes of files with several names to their first names.
	links map[[2]uint64]string
	// owners are the recorded owners that are not in extended attributes.
	owners *recorded.Owners
}

// dir writes the directory d and its content. at is its path with a trailing slash, or ""
// for the top.
func (p *packer) dir(d *os.Root, at string) error {
	names, err := p.dirEntry(d, cmp.Or(at, "./"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := context.Cause(p.ctx); err != nil {
			return err
		}
		if err := p.entry(d, name, at+name); err != nil {
			return fmt.Errorf("%s: %w", at+name, err)
		}
	}
	return nil
}

// dirEntry writes the entry of d itself and returns the names in d.
func (p *packer) dirEntry(d *os.Root, name string) (names []string, err error) {
	f, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	attrs, err := p.attributes(f)
	if err != nil {
		return nil, err
	}
	if err := p.header(info, name, "", attrs); err != nil {
		return nil, err
	}
	return f.Readdirnames(-1)
}

func (p *packer) entry(d *os.Root, name, at string) error {
	info, err := d.Lstat(name)
	if err != nil {
		return err
	}
	switch info.Mode().Type() { //nolint:exhaustive // the others are left out
	case fs.ModeDir:
		sub, err := d.OpenRoot(name)
		if err != nil {
			return err
		}
		defer sub.Close() //nolint:errcheck // only reads
		return p.dir(sub, at+"/")
	case fs.ModeSymlink:
		target, err := d.Readlink(name)
		if err != nil {
			return err
		}
		owner, err := p.linkOwner(d, name)
		if err != nil {
			return err
		}
		return p.header(info, at, target, attributes{owner: owner})
	case 0:
		return p.file(d, name, at, info)
	}
	p.left++
	return nil
}

// attributes returns the attributes of a file or directory. They include the owner if it
// is recorded.
func (p *packer) attributes(f *os.File) (attributes, error) {
	a, err := readAttrs(f)
	if err != nil || !p.owners.Beside() {
		return a, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return a, err
	}
	kind := st.Mode & unix.S_IFMT
	if err := p.owners.Lookup(int(f.Fd()), "", &st); err != nil {
		return a, err
	}
	a.owner = &recorded.Record{UID: st.Uid, GID: st.Gid}
	a.special = a.special || st.Mode&unix.S_IFMT != kind
	return a, nil
}

// linkOwner returns the recorded owner of a symbolic link, or nil if no owners are
// recorded outside of extended attributes.
func (p *packer) linkOwner(d *os.Root, name string) (*recorded.Record, error) {
	if !p.owners.HasLinks() {
		return nil, nil //nolint:nilnil // none
	}
	f, err := d.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	if err := p.owners.Special(int(f.Fd()), name, &st); err != nil {
		return nil, err
	}
	return &recorded.Record{UID: st.Uid, GID: st.Gid}, nil
}

func (p *packer) file(d *os.Root, name, at string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its inode cannot be read")
	}
	inode := [2]uint64{st.Dev, st.Ino}
	if first, ok := p.links[inode]; ok {
		return p.tar.WriteHeader(&tar.Header{
			Typeflag: tar.TypeLink, Name: at, Linkname: first, ModTime: info.ModTime(), Format: tar.FormatPAX,
		})
	}
	f, err := d.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		return errors.Join(errors.New("changed while it was packed"), err)
	}
	attrs, err := p.attributes(f)
	if err != nil {
		return err
	}
	if attrs.special || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		p.left++
		return nil
	}
	if st.Nlink > 1 {
		p.links[inode] = at
	}
	if err := p.header(info, at, "", attrs); err != nil {
		return err
	}
	if _, err := io.CopyN(p.tar, f, info.Size()); err != nil {
		return err
	}
	return nil
}

func (p *packer) header(info fs.FileInfo, name, target string, attrs attributes) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("its inode cannot be read")
	}
	h := &tar.Header{
		Name: name, Linkname: target, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: info.ModTime(), Format: tar.FormatPAX, PAXRecords: attrs.records,
	}
	if attrs.owner != nil {
		h.Uid, h.Gid = int(attrs.owner.UID), int(attrs.owner.GID)
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag = tar.TypeDir
	case fs.ModeSymlink:
		// The time of a link is not used, and os.Root cannot set it.
		h.Typeflag, h.ModTime = tar.TypeSymlink, time.Time{}
	default:
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
	}
	return p.tar.WriteHeader(h)
}
