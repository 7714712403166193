package recorded

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

// Owners reads and writes records for a builder. It is safe for concurrent use.
type Owners struct {
	table Table

	mu     sync.Mutex
	loaded map[string]bool
	// restored are those of RestoreLinks.
	restored map[key]bool
}

// New returns Owners that know of no links and FIFOs yet.
func New() *Owners { return &Owners{loaded: map[string]bool{}} }

// NewBeside returns Owners that keep nothing in attributes, for file systems without
// them (see ProbeBeside), and know of no file yet.
func NewBeside() *Owners {
	o := New()
	o.table.beside = true
	return o
}

// Fresh returns Owners that know of no file and keep records where o does. o may be
// nil.
func (o *Owners) Fresh() *Owners {
	fresh := New()
	fresh.table.beside = o != nil && o.table.beside
	return fresh
}

// Beside reports whether nothing is kept in attributes.
func (o *Owners) Beside() bool { return o.table.beside }

// Named is the record of a file by its path in a layer.
type Named struct {
	Path string
	Record
}

// Load makes known the records of layer id, whose files are in dir, that are not in
// attributes, once. list returns them.
func (o *Owners) Load(id, dir string, list func() ([]Named, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.loaded[id] {
		return nil
	}
	names, err := list()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		if err := o.load(dir, names); err != nil {
			return fmt.Errorf("look up owners in a layer: %w", err)
		}
	}
	o.loaded[id] = true
	return nil
}

func (o *Owners) load(dir string, names []Named) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root) //nolint:errcheck // O_PATH: nothing to flush
	for _, n := range names {
		fd, err := confine.Open(root, n.Path, unix.O_PATH|unix.O_NOFOLLOW, 0, confine.InRoot|confine.NoMagicLinks|confine.NoXDev)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "open", Path: n.Path, Err: err}
		}
		k, err := o.table.key(fd, "", 0)
		_ = unix.Close(fd) // O_PATH
		if err == nil {
			err = o.table.set(k, n.Record)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// below names an entry of an open directory for calls that take a path only. The
// entry itself is not followed by those that begin with l.
func below(dir int, name string) string {
	if dir == unix.AT_FDCWD {
		return name
	}
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// Lookup makes st, which fstatat(2) gave for name in dir, what is recorded. No
// link is followed.
func (o *Owners) Lookup(dir int, name string, st *unix.Stat_t) error {
	if o.table.beside {
		return o.Special(dir, name, st)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		var buf [64]byte
		n, err := unix.Lgetxattr(below(dir, name), Attribute, buf[:])
		if err != nil {
			if noAttribute(err) {
				return o.Special(dir, name, st)
			}
			return fmt.Errorf("read the recorded owner of %s: %w", name, err)
		}
		return o.Value(buf[:n], st)
	}
	return o.Special(dir, name, st)
}

func noAttribute(err error) bool {
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP)
}

// Value makes st what the value of Attribute says.
func (o *Owners) Value(value []byte, st *unix.Stat_t) error {
	r, err := Parse(value)
	if err != nil {
		return err
	}
	r.Override(st)
	return nil
}

// Special is Lookup for what is no file and no directory, and, with Beside, for all
// files. name may be "" for what dir is.
func (o *Owners) Special(dir int, name string, st *unix.Stat_t) error {
	r, ok, err := o.table.find(dir, name, unix.AT_SYMLINK_NOFOLLOW)
	if ok {
		r.Override(st)
	}
	return err
}

// OwnerOf returns the owner of name in dir, which st describes, and makes st what
// it is taken for.
func (o *Owners) OwnerOf(dir int, name string, st *unix.Stat_t) (uid, gid uint32, err error) {
	err = o.Lookup(dir, name, st)
	return st.Uid, st.Gid, err
}

// Chown records the owner of name in dir, which is not followed. As chown(2) it
// clears set-id bits and file capabilities, and an id of all ones stays as it is. With
// Beside, name may be "" for what dir is.
func (o *Owners) Chown(dir int, name string, uid, gid uint32) error {
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH
	var st unix.Stat_t
	if err := unix.Fchownat(dir, name, 0, 0, flags); err != nil {
		return err
	}
	if err := unix.Fstatat(dir, name, &st, flags); err != nil {
		return err
	}
	was := st
	if err := o.Lookup(dir, name, &was); err != nil {
		return err
	}
	r := Record{UID: pick(uid, was.Uid), GID: pick(gid, was.Gid)}
	if was.Mode&unix.S_IFMT != st.Mode&unix.S_IFMT {
		r.Type, r.Rdev = was.Mode&unix.S_IFMT, was.Rdev
	}
	return o.write(dir, name, r, st.Mode)
}

// write records r for name in dir, a file of that mode, which is not followed.
func (o *Owners) write(dir int, name string, r Record, mode uint32) error {
	if kind := mode & unix.S_IFMT; !o.table.beside && (kind == unix.S_IFREG || kind == unix.S_IFDIR) {
		err := writeAttribute(below(dir, name), r, mode)
		if !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	k, err := o.table.key(dir, name, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	return o.table.set(k, r)
}

// Copied gives newName in to, which is a copy of name in from, extended attributes
// included, the owner of that one. Neither is followed; "." is the directory itself.
func (o *Owners) Copied(from int, name string, to int, newName string) error {
	r, ok, err := o.table.find(from, name, unix.AT_SYMLINK_NOFOLLOW)
	// A directory may have been there before, with another owner.
	if err != nil || !ok && (newName != "." || !o.table.beside) {
		return err
	}
	k, err := o.table.key(to, newName, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	return o.table.set(k, r)
}

// Mknod makes name in dir stand for a device.
func (o *Owners) Mknod(dir int, name string, mode uint32, dev uint64) error {
	switch mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
	default:
		return unix.Mknodat(dir, name, mode, 0)
	}
	if err := unix.Mknodat(dir, name, unix.S_IFREG|mode&0o7777, 0); err != nil {
		return err
	}
	return o.write(dir, name, Record{Type: mode & unix.S_IFMT, Rdev: dev}, unix.S_IFREG|mode&0o7777)
}

// writeAttribute records r at path, whose last component is not followed.
func writeAttribute(path string, r Record, mode uint32) error {
	if r.plain() {
		err := unix.Lremovexattr(path, Attribute)
		if errors.Is(err, unix.ENODATA) {
			return nil
		}
		return err
	}
	return unix.Lsetxattr(path, Attribute, r.format(mode), 0)
}
