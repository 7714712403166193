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

// root is a directory that is written to. Paths named rel are clean, relative
// and free of links, as resolve returns them.
type root struct {
	dir string
	f   *os.File
	// chown gives an entry its owner without following links.
	chown func(dir int, name string, uid, gid uint32) error
	// mknod makes a special file; nil is mknodat(2).
	mknod func(dir int, name string, mode uint32, dev uint64) error
	// part is as in Options, and made are the inodes of several names that the
	// operation made itself.
	part func(dir int, name string) error
	made map[inode]bool
}

// note says that the operation made the inode of rel, which has several names or
// will have.
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

// own gives rel an inode that nothing outside of the root has, before it is linked
// or its metadata changes.
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

// makeNode makes a special file.
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

// resolve returns where name leads inside the root.
func (r *root) resolve(name string) (string, error) {
	return beneath.Resolve(r.fd(), name, true)
}

// lstat describes rel; the error for nothing there is fs.ErrNotExist.
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

// in calls fn with the directory of rel open and the name of rel in it.
func (r *root) in(rel string, fn func(dir int, name string) error) error {
	dir, err := r.openDir(path.Dir(rel))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	return fn(dir, path.Base(rel))
}

// attrs are what a new entry gets; nil fields are left as the kernel makes
// them.
type attrs struct {
	owner *ids
	mode  *uint32 // permission bits
	mtime *time.Time
}

// ids are a user and a group.
type ids struct{ uid, gid uint32 }

// mkdirAll makes rel and what is missing above it and returns the directories
// it made, outermost first.
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

// mkdir makes one directory.
func (r *root) mkdir(rel string, a attrs) error {
	return r.in(rel, func(dir int, name string) error {
		if err := unix.Mkdirat(dir, name, 0o700); err != nil {
			return &os.PathError{Op: "mkdir", Path: "/" + rel, Err: err}
		}
		return r.apply(dir, name, rel, a)
	})
}

// apply sets owner, then mode, because chown(2) clears set-id bits, then time.
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

// missing leaves out of a what the file that was just made as fd has already,
// which is everything most of the time.
func (r *root) missing(fd int, a attrs) attrs {
	var st unix.Stat_t
	if r.chown != nil || unix.Fstat(fd, &st) != nil {
		return a
	}
	if a.owner != nil && *a.owner == (ids{st.Uid, st.Gid}) {
		a.owner = nil
	}
	// A change of owner would clear the bits that mode may set.
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

// setTimesOf sets the modification time of directories that were made, after
// the last thing was put into them.
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

// remove removes rel with all below it; nothing there is fine.
func (r *root) remove(rel string) error {
	err := r.in(rel, func(dir int, name string) error { return rmtree.At(dir, name) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove /%s: %w", rel, err)
	}
	return nil
}

// makeWay removes what is at name so that a file can be put there. A directory
// is in the way for good.
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

// clean makes a path absolute and clean but keeps a trailing "/" or "/.", which
// say that a directory is meant.
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

// stamp converts a timestamp of an action, -1 being none.
func stamp(ns int64) *time.Time {
	if ns == -1 {
		return nil
	}
	t := time.Unix(0, ns)
	return &t
}
