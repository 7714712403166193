package diff

import (
	"bytes"
	"errors"
	"fmt"
	"sort"

	"golang.org/x/sys/unix"
)

// beneath is the merged lower directory under a directory of the upper directory. Its
// layers are open.
type beneath struct {
	fds    []int // topmost first
	prefix string
	owners Owners
}

// open opens the directory rel in each of the given layers. rel must be a directory in
// all of them; "" is the root.
func (l *lowers) open(rel string, in layers) (*beneath, error) {
	b := &beneath{prefix: l.prefix, owners: l.owners}
	if rel == "" {
		rel = "."
	}
	for _, i := range in {
		fd, err := openBeneath(l.roots[i], rel)
		if err != nil {
			b.close()
			return nil, fmt.Errorf("lower layer %d: %s: %w", i, rel, err)
		}
		b.fds = append(b.fds, fd)
	}
	return b, nil
}

func (b *beneath) close() {
	for _, fd := range b.fds {
		_ = unix.Close(fd)
	}
}

// names returns the sorted names in the merged directory. It leaves out deleted names.
func (b *beneath) names(buf []byte) ([]string, error) {
	hidden := map[string]bool{} // false for a visible name
	for _, fd := range b.fds {
		list, err := listDir(fd, buf)
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			if _, ok := hidden[c.name]; ok {
				continue
			}
			var st unix.Stat_t
			if hidden[c.name], err = b.isWhiteout(fd, c, &st); err != nil {
				return nil, err
			}
		}
	}
	var names []string
	for name, gone := range hidden {
		if !gone {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	return names, nil
}

func (b *beneath) isWhiteout(dir int, c dirent, st *unix.Stat_t) (bool, error) {
	if c.kind == unix.DT_DIR || c.kind == unix.DT_LNK {
		return false, nil
	}
	if err := unix.Fstatat(dir, c.name, st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	return b.whiteout(dir, c.name, st)
}

func (b *beneath) whiteout(dir int, name string, st *unix.Stat_t) (bool, error) {
	if st.Mode&unix.S_IFMT == unix.S_IFCHR {
		return st.Rdev == 0, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false, nil
	}
	fd, err := openAt(dir, name, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	attrs, err := readXattrs(fd, b.prefix, fileXattrs)
	return attrs.whiteout, err
}

// find looks for name in the merged directory and returns the open directory of its
// layer. ok is false if there is no such file.
func (b *beneath) find(name string) (dir int, st unix.Stat_t, ok bool, err error) {
	for _, fd := range b.fds {
		err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return 0, st, false, fmt.Errorf("stat %s in a lower layer: %w", name, err)
		}
		gone, err := b.whiteout(fd, name, &st)
		return fd, st, err == nil && !gone, err
	}
	return 0, st, false, nil
}

// has reports whether the non-directory name in upper equals the lower file that it
// hides. In that case no tar entry is needed. Contents are compared even if the times are
// equal, because many files are written within one tick of the clock. A file with several
// hard links is never equal, because its other names may need the entry.
func (b *beneath) has(upper int, name string) (bool, error) {
	dir, low, ok, err := b.find(name)
	if err != nil || !ok {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(upper, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("stat %s: %w", name, err)
	}
	if st.Nlink != 1 || st.Mode != low.Mode || st.Uid != low.Uid || st.Gid != low.Gid ||
		!sameTime(st.Mtim, low.Mtim) {
		return false, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		err := errors.Join(asNoted(b.owners, upper, name, &st), asNoted(b.owners, dir, name, &low))
		if err != nil || st.Uid != low.Uid || st.Gid != low.Gid {
			return false, err
		}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return st.Size == low.Size && b.sameFile(upper, dir, name, st.Size), nil
	case unix.S_IFLNK:
		one, err1 := readLink(upper, name, st.Size)
		two, err2 := readLink(dir, name, low.Size)
		return one == two, errors.Join(err1, err2)
	case unix.S_IFCHR, unix.S_IFBLK:
		return st.Rdev == low.Rdev, nil
	}
	return st.Mode&unix.S_IFMT == unix.S_IFIFO, nil
}

// sameOwner reports whether two open files have the same recorded owner.
func (b *beneath) sameOwner(fds [2]int, attrs [2]xattrs) bool {
	var x, y unix.Stat_t
	err := errors.Join(asRecorded(b.owners, attrs[0], fds[0], &x), asRecorded(b.owners, attrs[1], fds[1], &y))
	return err == nil && x == y
}

// sameTime reports whether two times are equal. A lower time may come from an archive,
// which has only whole seconds.
func sameTime(upper, lower unix.Timespec) bool {
	return upper.Sec == lower.Sec && (lower.Nsec == 0 || upper.Nsec == lower.Nsec)
}

// sameFile reports whether two files have the same owner, attributes and contents. It
// returns false if a file cannot be read. The error then appears when the file is packed.
func (b *beneath) sameFile(upper, lower int, name string, size int64) bool {
	var fds [2]int
	var attrs [2]xattrs
	for i, dir := range [2]int{upper, lower} {
		fd, err := openAt(dir, name, 0)
		if err != nil {
			return false
		}
		defer unix.Close(fd) //nolint:errcheck // read only
		fds[i] = fd
		if attrs[i], err = readXattrs(fd, b.prefix, fileXattrs); err != nil {
			return false
		}
	}
	if attrs[0].whiteout || attrs[0].reference || !b.sameOwner(fds, attrs) || !sameRecords(attrs[0].records, attrs[1].records) {
		return false
	}
	one, two := make([]byte, min(size, slabSize)), make([]byte, min(size, slabSize))
	for size > 0 {
		n := min(size, slabSize)
		if readFull(fds[0], one[:n]) != nil || readFull(fds[1], two[:n]) != nil || !bytes.Equal(one[:n], two[:n]) {
			return false
		}
		size -= n
	}
	return true
}
