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

// Owners reads and writes the records of a builder. Records of regular files and
// directories are in xattrs of the files. All other records are in a Table in memory,
// which is lost at the end of the build. An Owners is safe for concurrent use.
type Owners struct {
	table Table

	mu     sync.Mutex
	loaded map[string]bool
	// restored has the keys of the records that RestoreLinks added.
	restored map[key]bool
}

// New returns an Owners with an empty Table. It keeps records of regular files and
// directories in xattrs.
func New() *Owners { return &Owners{loaded: map[string]bool{}} }

// NewBeside returns an Owners with an empty Table that holds the records of all files. It
// is for file systems that do not support user xattrs, see ProbeBeside.
func NewBeside() *Owners {
	o := New()
	o.table.beside = true
	return o
}

// Fresh returns an Owners with an empty Table that keeps records in the same way as o. If
// o is nil, it is New.
func (o *Owners) Fresh() *Owners {
	fresh := New()
	fresh.table.beside = o != nil && o.table.beside
	return fresh
}

// Beside reports whether the Table holds the records of all files, and none is in an
// xattr.
func (o *Owners) Beside() bool { return o.table.beside }

// Named is a record with the path of its file in a layer.
type Named struct {
	Path string
	Record
}

// Load adds the records of the layer id that are not in xattrs to the Table. dir is the
// directory of the layer's files. list returns the records, which are saved with the
// layer. Load calls list only once for each id, and skips files that do not exist. It
// returns an error if list fails, a file cannot be opened, or the Table is full.
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

// below returns a path of an entry of an open directory, for system calls that only take
// a path. Calls that begin with l, for example lgetxattr, do not follow the entry itself.
func below(dir int, name string) string {
	if dir == unix.AT_FDCWD {
		return name
	}
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// Lookup changes st to the recorded owner of name in the directory dir, and to the
// recorded type and number of a device. st must be the result of fstatat(2). If there is
// no record, st stays unchanged. Lookup does not follow symbolic links. It returns an
// error if it cannot read the record or the record is damaged.
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

// Value changes st as Lookup does, to the record in value. value is the content of the
// xattr Attribute. It returns an error if value is damaged. It is for callers that have
// read the xattrs of a file already.
func (o *Owners) Value(value []byte, st *unix.Stat_t) error {
	r, err := Parse(value)
	if err != nil {
		return err
	}
	r.Override(st)
	return nil
}

// Special is Lookup for records in the Table. These are records of files other than
// regular files and directories. With Beside they are the records of all files. If name
// is "", the file is dir itself.
func (o *Owners) Special(dir int, name string, st *unix.Stat_t) error {
	r, ok, err := o.table.find(dir, name, unix.AT_SYMLINK_NOFOLLOW)
	if ok {
		r.Override(st)
	}
	return err
}

// OwnerOf is Lookup for callers that need the owner only. It returns the owner of name in
// the directory dir and changes st in the same way.
func (o *Owners) OwnerOf(dir int, name string, st *unix.Stat_t) (uid, gid uint32, err error) {
	err = o.Lookup(dir, name, st)
	return st.Uid, st.Gid, err
}

// Chown records the owner of name in the directory dir. It does not follow symbolic
// links. Like chown(2), it clears set-id bits and file capabilities, and an id with all
// bits set stays unchanged. With Beside name may be "", which means dir itself. The error
// is that of a system call. It is ENOSPC if the Table is full, and another error if the
// present record is damaged.
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

// write records r for name in the directory dir. mode is the mode of the file. It does
// not follow symbolic links.
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

// Copied copies a record in the Table from a file to its copy. The file is name in the
// directory from, and the copy is newName in the directory to. The caller must have
// copied the xattrs already, because Copied does not copy a record in an xattr. It does
// not follow symbolic links. "." means the directory itself. It returns an error if it
// cannot identify a file or the Table is full.
func (o *Owners) Copied(from int, name string, to int, newName string) error {
	r, ok, err := o.table.find(from, name, unix.AT_SYMLINK_NOFOLLOW)
	// The directory may have existed before, with another owner.
	if err != nil || !ok && (newName != "." || !o.table.beside) {
		return err
	}
	k, err := o.table.key(to, newName, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return err
	}
	return o.table.set(k, r)
}

// Mknod creates name in the directory dir. For a device it creates an empty regular file
// with a record, because a user namespace may not create devices. The error is that of a
// system call, or ENOSPC if the Table is full.
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

// writeAttribute writes r to the xattr of path. It does not follow a symbolic link at
// path.
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
