package fileop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local/beneath"
	"github.com/shale-build/shale/internal/rmtree"
)

// root is a directory that is changed by actions. Paths called rel are relative, clean
// and free of symbolic links, as resolve returns them.
type root struct {
	dir string
	f   *os.File
	// chown sets the owner of an entry without following symbolic links.
	chown func(dir int, name string, uid, gid uint32) error
	// mknod creates a special file. If it is nil, mknodat(2) is used.
	mknod func(dir int, name string, mode uint32, dev uint64) error
	// part is Options.Part. made are the inodes with several names that this operation
	// created itself.
	part func(dir int, name string) error
	made map[inode]bool
}

// note records that this operation created the inode of rel. The inode has or will have
// several names.
func (r *root) note(rel string) error {
	if r.part == nil {
		return nil
	}
	st, err := r.lstat(rel)
	if err != nil {
		return err
	}
	r.made[inode{st.Dev, st.Ino}] = true
	return nil
}

// own calls part for rel, unless the operation created its inode. It must be called
// before rel is linked or its metadata is changed.
func (r *root) own(rel string, st *unix.Stat_t) error {
	if r.part == nil || st.Nlink <= 1 || st.Mode&unix.S_IFMT == unix.S_IFDIR || r.made[inode{st.Dev, st.Ino}] {
		return nil
	}
	return r.in(rel, func(dir int, name string) error {
		if err := r.part(dir, name); err != nil {
			return fmt.Errorf("copy /%s: %w", rel, err)
		}
		return nil
	})
}

// makeNode creates a special file.
func (r *root) makeNode(dir int, name string, mode uint32, dev uint64) error {
	if r.mknod != nil {
		return r.mknod(dir, name, mode, dev)
	}
	return unix.Mknodat(dir, name, mode, int(dev))
}

func openRoot(dir string) (*root, error) {
	f, err := beneath.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open destination: %w", err)
	}
	return &root{dir: dir, f: f}, nil
}

func (r *root) close() error { return r.f.Close() }

func (r *root) fd() int { return int(r.f.Fd()) }

// resolve resolves name inside the root.
func (r *root) resolve(name string) (string, error) {
	return beneath.Resolve(r.fd(), name, true)
}

// lstat returns the metadata of rel. It returns fs.ErrNotExist if rel does not exist.
func (r *root) lstat(rel string) (unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := beneath.Open(r.fd(), rel, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return st, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Fstat(fd, &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: "/" + rel, Err: err}
	}
	return st, nil
}

// openDir opens the directory rel.
func (r *root) openDir(rel string) (int, error) {
	return beneath.Open(r.fd(), rel, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// in calls fn with the open parent directory of rel and the last component of rel.
func (r *root) in(rel string, fn func(dir int, name string) error) error {
	dir, err := r.openDir(path.Dir(rel))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	return fn(dir, path.Base(rel))
}

// attrs are the attributes of a new entry. For nil fields, the kernel's defaults are
// kept.
type attrs struct {
	owner *ids
	mode  *uint32 // permission bits
	mtime *time.Time
}

// ids are a user id and a group id.
type ids struct{ uid, gid uint32 }

// mkdirAll creates the directory rel and its missing parents. It returns the directories
// that it created, outermost first.
func (r *root) mkdirAll(rel string, a attrs) ([]string, error) {
	st, err := r.lstat(rel)
	if err == nil {
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			return nil, &os.PathError{Op: "mkdir", Path: "/" + rel, Err: unix.ENOTDIR}
		}
		return nil, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	made, err := r.mkdirAll(path.Dir(rel), a)
	if err != nil {
		return made, err
	}
	if err := r.mkdir(rel, a); err != nil {
		return made, err
	}
	return append(made, rel), nil
}

// mkdir creates one directory.
func (r *root) mkdir(rel string, a attrs) error {
	return r.in(rel, func(dir int, name string) error {
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: "/" + rel, Err: err}
		}
		return r.apply(dir, name, rel, a)
	})
}

// apply sets the owner, then the mode, because chown(2) clears the set-id bits, and then
// the time.
func (r *root) apply(dir int, name, rel string, a attrs) error {
	if a.owner != nil {
		if err := r.setOwner(dir, name, rel, *a.owner); err != nil {
			return err
		}
	}
	if a.mode != nil {
		if err := unix.Fchmodat(dir, name, *a.mode, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: "/" + rel, Err: err}
		}
	}
	if a.mtime != nil {
		return setTimes(dir, name, rel, *a.mtime, *a.mtime)
	}
	return nil
}

// missing removes from a the attributes that the new file fd already has. In most cases
// this is all of them.
func (r *root) missing(fd int, a attrs) attrs {
	var st unix.Stat_t
	if r.chown != nil || unix.Fstat(fd, &st) != nil {
		return a
	}
	if a.owner != nil && *a.owner == (ids{st.Uid, st.Gid}) {
		a.owner = nil
	}
	// If the owner must change, set the mode again: chown(2) clears set-id bits.
	if a.owner == nil && a.mode != nil && *a.mode == st.Mode&0o7777 {
		a.mode = nil
	}
	return a
}

func (r *root) setOwner(dir int, name, rel string, o ids) error {
	chown := r.chown
	if chown == nil {
		chown = lchown
	}
	err := chown(dir, name, o.uid, o.gid)
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("chown /%s to %d:%d: %w: an id is beyond the subordinate ids of this user; build with --isolation=recorded and a store of its own (--root)", rel, o.uid, o.gid, err)
	}
	if err != nil {
		return fmt.Errorf("chown /%s to %d:%d: %w", rel, o.uid, o.gid, err)
	}
	return nil
}

func lchown(dir int, name string, uid, gid uint32) error {
	return unix.Fchownat(dir, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
}

func setTimes(dir int, name, rel string, atime, mtime time.Time) error {
	at, err := unix.TimeToTimespec(atime)
	if err != nil {
		return fmt.Errorf("set times of /%s: %w", rel, err)
	}
	mt, err := unix.TimeToTimespec(mtime)
	if err != nil {
		return fmt.Errorf("set times of /%s: %w", rel, err)
	}
	if err := unix.UtimesNanoAt(dir, name, []unix.Timespec{at, mt}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "utimes", Path: "/" + rel, Err: err}
	}
	return nil
}

// setTimesOf sets the modification time of new directories. It must be called after the
// last entry was created in them.
func (r *root) setTimesOf(dirs []string, t *time.Time) error {
	if t == nil {
		return nil
	}
	for _, d := range dirs {
		err := r.in(d, func(dir int, name string) error { return setTimes(dir, name, d, *t, *t) })
		if err != nil {
			return err
		}
	}
	return nil
}

// remove removes rel and all files below it. It is not an error if rel does not exist.
func (r *root) remove(rel string) error {
	err := r.in(rel, func(dir int, name string) error { return rmtree.At(dir, name) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove /%s: %w", rel, err)
	}
	return nil
}

// makeWay removes name so that a file can be created there. It returns an error if name
// is a directory.
func makeWay(dir int, name, rel string) error {
	err := unix.Unlinkat(dir, name, 0)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return nil
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EPERM) && isDirAt(dir, name):
		return fmt.Errorf("cannot replace to directory /%s with file", rel)
	}
	return &os.PathError{Op: "remove", Path: "/" + rel, Err: err}
}

func isDirAt(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// clean returns the absolute, clean form of a path. It keeps a trailing "/" or "/.",
// because these require a directory.
func clean(name string) string {
	c := path.Join("/", name)
	if c == "/" {
		return c
	}
	switch {
	case strings.HasSuffix(name, "/."):
		return c + "/."
	case strings.HasSuffix(name, "/"):
		return c + "/"
	}
	return c
}

// stamp converts a timestamp of an action. It returns nil for -1.
func stamp(ns int64) *time.Time {
	if ns == -1 {
		return nil
	}
	t := time.Unix(0, ns)
	return &t
}
