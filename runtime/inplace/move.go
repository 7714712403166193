package inplace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
	"github.com/shale-build/shale/internal/rmtree"
)

// mover moves and removes directory trees of one file system. It does not touch spared
// paths.
type mover struct {
	// spared has the paths that are not touched, above has their parent directories. Both
	// are relative to the root directory.
	spared map[string]bool
	above  map[string]bool
	// helpers limits the number of goroutines that run beside the first one.
	helpers chan struct{}

	// making is an open directory, or -1. If it is open, twins are made in it, get their
	// owner, mode and attributes there, and are then renamed to their place. Otherwise
	// twins are made in their place. made counts the twins that were made in making.
	making int
	made   atomic.Int64

	mu sync.Mutex
	// twins maps files with several names that were moved out of a lower layer to the new
	// path of their first name.
	twins map[inode]string
}

// helpers is the number of directories that are processed at a time. The work waits for
// the disk more than for the processor, because an overlay writes back each file that is
// copied up.
const helpers = 8

// inode identifies a file by its device and inode number.
type inode struct{ dev, ino uint64 }

// newMover returns a mover that spares paths. They are relative to the root directory.
func newMover(paths []string) *mover {
	m := &mover{
		spared: map[string]bool{}, above: map[string]bool{},
		helpers: make(chan struct{}, helpers-1), making: -1, twins: map[inode]string{},
	}
	for _, p := range paths {
		m.spared[p] = true
		for up := path.Dir(p); up != "." && up != "/"; up = path.Dir(up) {
			m.above[up] = true
		}
	}
	return m
}

// each calls do for every name, some of them in parallel. It returns when all calls have
// returned, with the first error in the order of names.
func (m *mover) each(names []string, do func(name string) error) error {
	errs := make([]error, len(names))
	var wait sync.WaitGroup
	for i, name := range names {
		select {
		case m.helpers <- struct{}{}:
			wait.Go(func() {
				errs[i] = do(name)
				<-m.helpers
			})
		default:
			errs[i] = do(name)
		}
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// out moves the entries of the open directory from, which has the path rel, into the
// empty directory to. The parents of spared paths stay, with only the spared paths in
// them, and get a twin in to.
func (m *mover) out(from, to int, rel string) error { return m.outTo(to, from, to, rel) }

// outMarked is out for the root directory. It moves to own, which must contain the mark.
// Even if outMarked fails in the middle, the entries in own have their metadata and back
// can move them back.
func (m *mover) outMarked(root, own int) (err error) {
	if m.making, err = openDir(own, leavingMark); err != nil {
		return err
	}
	defer func() {
		_ = unix.Close(m.making)
		m.making = -1
	}()
	return m.out(root, own, "")
}

// outTo is out for one directory of the tree. top is the target directory of the whole
// tree.
func (m *mover) outTo(top, from, to int, rel string) error {
	names, err := readNames(from)
	if err != nil {
		return fmt.Errorf("list /%s: %w", rel, err)
	}
	var dirs []string
	for _, name := range names {
		p := path.Join(rel, name)
		if m.spared[p] {
			continue
		}
		if m.above[p] {
			dirs = append(dirs, name)
			continue
		}
		err := m.outName(top, from, to, name, p)
		// Overlayfs does not rename directories of lower layers.
		if errors.Is(err, unix.EXDEV) {
			dirs = append(dirs, name)
			continue
		}
		if err != nil {
			return fmt.Errorf("move /%s out of the way: %w", p, err)
		}
	}
	return m.each(dirs, func(name string) error { return m.outDir(top, from, to, name, path.Join(rel, name)) })
}

// outName moves one entry, which has the path rel. If a file of a lower layer is renamed,
// overlayfs copies it up. It makes one copy for each name, so that hard links are lost.
// Therefore outName renames only the first name of a file, and links the other names to
// it.
func (m *mover) outName(top, from, to int, name, rel string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink == 1 {
		return unix.Renameat(from, name, to, name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	id := inode{dev: uint64(st.Dev), ino: st.Ino} //nolint:unconvert // 32 bits on some architectures
	first, ok := m.twins[id]
	if !ok {
		if err := unix.Renameat(from, name, to, name); err != nil {
			return err
		}
		m.twins[id] = rel
		return removeLink(from, name)
	}
	// EEXIST: an earlier attempt made the link and was interrupted.
	if err := linkBeneath(top, first, to, name); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make it a link of /%s: %w", first, err)
	}
	return unix.Unlinkat(from, name, 0)
}

// linkBeneath makes a hard link to the file rel, a path below the open directory top. The
// link is called name, in the open directory to.
func linkBeneath(top int, rel string, to int, name string) error {
	dir, err := confine.Open(top, path.Dir(rel), unix.O_PATH|unix.O_DIRECTORY, 0, confine.Beneath|confine.NoSymlinks)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dir) }()
	return unix.Linkat(dir, path.Base(rel), to, name, 0)
}

func (m *mover) outDir(top, from, to int, name, rel string) error {
	err := m.twin(from, to, name, func(src, dst int) error { return m.outTo(top, src, dst, rel) })
	if err == nil && !m.above[rel] {
		err = unix.Unlinkat(from, name, unix.AT_REMOVEDIR)
	}
	if err != nil {
		return fmt.Errorf("move /%s out of the way: %w", rel, err)
	}
	return nil
}

// twin makes a copy of the directory name of from in the open directory to. It calls move
// for the entries, and then copies the metadata. If an earlier attempt was interrupted,
// the copy may exist already.
func (m *mover) twin(from, to int, name string, move func(src, dst int) error) error {
	src, err := openDir(from, name)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(src) }()
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	dst, err := m.makeTwin(src, to, name, &st)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(dst) }()
	if err := move(src, dst); err != nil {
		return err
	}
	if m.making >= 0 {
		return likeTimes(dst, &st)
	}
	return likeDir(src, dst, &st)
}

func (m *mover) makeTwin(src, to int, name string, st *unix.Stat_t) (int, error) {
	if m.making < 0 {
		if err := unix.Mkdirat(to, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, err
		}
		return openDir(to, name)
	}
	temporary := strconv.FormatInt(m.made.Add(1), 10)
	if err := unix.Mkdirat(m.making, temporary, 0o700); err != nil {
		return -1, err
	}
	dst, err := openDir(m.making, temporary)
	if err != nil {
		return -1, err
	}
	err = likeOwner(src, dst, st)
	if err == nil {
		err = unix.Renameat(m.making, temporary, to, name)
	}
	if err != nil {
		_ = unix.Close(dst)
		return -1, err
	}
	return dst, nil
}

// back moves the entries of from into the open directory to, which has the path rel. If a
// directory exists in to, because out left it there, back merges the two and restores the
// metadata.
func (m *mover) back(from, to int, rel string) error {
	names, err := readNames(from)
	if err != nil {
		return fmt.Errorf("list the files moved out of /%s: %w", rel, err)
	}
	var dirs []string
	for _, name := range names {
		p := path.Join(rel, name)
		if p == leavingMark {
			continue
		}
		err := unix.Renameat2(from, name, to, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
			err = renameNoReplace(from, name, to)
		}
		if errors.Is(err, unix.EEXIST) && !m.spared[p] {
			err = replaceFile(from, name, to)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EXDEV) {
			return fmt.Errorf("move /%s back: %w", p, err)
		}
		dirs = append(dirs, name)
	}
	return m.each(dirs, func(name string) error { return m.backDir(from, to, name, path.Join(rel, name)) })
}

// replaceFile moves the non-directory name over an existing entry. Such an entry is
// another link to the same file: the process was killed after outName had made the link,
// and before it removed the first name. For directories replaceFile returns EEXIST.
func replaceFile(from int, name string, to int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EEXIST
	}
	if err := unix.Renameat(from, name, to, name); err != nil {
		return err
	}
	return removeLink(from, name)
}

// removeLink removes name if it still exists after a rename. If both names are links to
// the same file, rename(2) succeeds without doing anything.
func removeLink(from int, name string) error {
	if err := unix.Unlinkat(from, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func renameNoReplace(from int, name string, to int) error {
	var st unix.Stat_t
	if unix.Fstatat(to, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return unix.EEXIST
	}
	return unix.Renameat(from, name, to, name)
}

func (m *mover) backDir(from, to int, name, rel string) error {
	err := m.twin(from, to, name, func(src, dst int) error { return m.back(src, dst, rel) })
	if err == nil {
		err = unix.Unlinkat(from, name, unix.AT_REMOVEDIR)
	}
	if err != nil {
		return fmt.Errorf("move /%s back: %w", rel, err)
	}
	return nil
}

// clear removes the entries of the open directory, which has the path rel. Spared paths
// and their parents stay.
func (m *mover) clear(dir int, rel string) error {
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("list /%s: %w", rel, err)
	}
	var dirs []string
	for _, name := range names {
		if m.spared[path.Join(rel, name)] {
			continue
		}
		err := unix.Unlinkat(dir, name, 0)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			dirs = append(dirs, name) // a directory, or a file whose removal fails
		}
	}
	return m.each(dirs, func(name string) error {
		p := path.Join(rel, name)
		err := m.removeDir(dir, name, p)
		if err != nil && !errors.Is(err, unix.EMFILE) { // every level would add its path
			err = fmt.Errorf("remove /%s: %w", p, err)
		}
		return err
	})
}

// remove removes name in the open directory. rel is the path of name. A missing entry is
// not an error.
func (m *mover) remove(dir int, name, rel string) error {
	err := unix.Unlinkat(dir, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return m.removeDir(dir, name, rel)
}

func (m *mover) removeDir(dir int, name, rel string) error {
	sub, err := openDir(dir, name)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		// This is not a directory. The call returns the reason why it cannot be removed.
		return unix.Unlinkat(dir, name, 0)
	}
	if err != nil {
		return err
	}
	err = m.clear(sub, rel)
	_ = unix.Close(sub)
	if errors.Is(err, unix.EMFILE) && !m.above[rel] {
		return rmtree.At(dir, name) // the tree is deeper than the limit of open files
	}
	if err != nil || m.above[rel] {
		return err
	}
	return unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// likeDir copies the owner, mode, attributes and times of directory src to dst. Both are
// open.
func likeDir(src, dst int, st *unix.Stat_t) error {
	if err := likeOwner(src, dst, st); err != nil {
		return err
	}
	return likeTimes(dst, st)
}

func likeTimes(dst int, st *unix.Stat_t) error {
	return unix.UtimesNanoAt(dst, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH)
}

// likeOwner is likeDir without the times.
func likeOwner(src, dst int, st *unix.Stat_t) error {
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := likeXattrs(src, dst); err != nil {
		return err
	}
	return unix.Fchmod(dst, st.Mode&0o7777)
}

// likeXattrs makes the xattrs of dst equal to those of src. Attributes that this process
// may not set are skipped.
func likeXattrs(src, dst int) error {
	names, err := xattrNames(src)
	if err != nil {
		return nil //nolint:nilerr // a file system without attributes
	}
	value := make([]byte, 64<<10)
	kept := map[string]bool{}
	for _, name := range names {
		kept[name] = true
		size, err := unix.Fgetxattr(src, name, value)
		if err != nil {
			continue
		}
		if err := unix.Fsetxattr(dst, name, value[:size], 0); err != nil && !notOurs(err) {
			return err
		}
	}
	names, err = xattrNames(dst)
	if err != nil {
		return nil //nolint:nilerr // a file system without attributes
	}
	for _, name := range names {
		if kept[name] {
			continue
		}
		if err := unix.Fremovexattr(dst, name); err != nil && !notOurs(err) {
			return err
		}
	}
	return nil
}

// notOurs reports whether err means that this process may not set an xattr, for example a
// security label.
func notOurs(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) }

func xattrNames(fd int) ([]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(fd, buf)
	if err != nil {
		return nil, err
	}
	return splitNames(buf[:n]), nil
}

func splitNames(b []byte) []string {
	var out []string
	start := 0
	for i, c := range b {
		if c == 0 {
			out = append(out, string(b[start:i]))
			start = i + 1
		}
	}
	return out
}

func openDir(dir int, name string) (int, error) {
	return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func readNames(fd int) ([]string, error) {
	dup, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), "directory")
	defer f.Close()
	return f.Readdirnames(-1)
}

// RemoveAt removes name in the open directory dir, with everything below it. It is used
// for entries that a step may have changed, so it does not follow symbolic links. A
// missing entry is not an error. If an entry below name cannot be removed, the error has
// its path.
func RemoveAt(dir int, name string) error { return newMover(nil).remove(dir, name, name) }

// ClearAt removes all entries of the open directory dir, but not dir itself. It does not
// follow symbolic links.
func ClearAt(dir int) error { return newMover(nil).clear(dir, "") }
