package diff

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

// lowers answers what a directory of the upper lies over.
type lowers struct {
	roots  []int
	prefix string
	owners Owners
}

func openLowers(dirs []string, prefix string, owners Owners) (*lowers, error) {
	l := &lowers{prefix: prefix, owners: owners}
	for _, dir := range dirs {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			l.close()
			return nil, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		l.roots = append(l.roots, fd)
	}
	return l, nil
}

func (l *lowers) close() {
	for _, fd := range l.roots {
		_ = unix.Close(fd)
	}
}

// layers are the lowers, by index and topmost first, in which a path is a
// directory that shows through.
type layers []int

func (l *lowers) all() layers {
	all := make(layers, len(l.roots))
	for i := range all {
		all[i] = i
	}
	return all
}

// lowerDir is the merged directory below one of the upper's.
type lowerDir struct {
	// layers it is made of; none if there is no such directory.
	layers layers
	// stat and xattrs are those of the topmost.
	stat   unix.Stat_t
	xattrs xattrs
}

// dir looks rel up in the layers where its parent is. A name that is not a
// directory, a whiteout above all, hides everything under it.
func (l *lowers) dir(rel string, parent layers) (lowerDir, error) {
	var d lowerDir
	for _, i := range parent {
		more, err := l.add(&d, i, rel)
		if err != nil {
			return lowerDir{}, fmt.Errorf("lower layer %d: %s: %w", i, rel, err)
		}
		if !more {
			break
		}
	}
	return d, nil
}

// add adds layer i to d and reports whether what lies under it shows through.
func (l *lowers) add(d *lowerDir, i int, rel string) (more bool, err error) {
	fd, err := openBeneath(l.roots[i], rel)
	switch {
	case errors.Is(err, unix.ENOENT):
		return true, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return false, nil
	case err != nil:
		return false, err
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	attrs, err := readXattrs(fd, l.prefix, dirXattrs)
	if err != nil {
		return false, err
	}
	if len(d.layers) == 0 {
		if err := unix.Fstat(fd, &d.stat); err != nil {
			return false, err
		}
		if err := asRecorded(l.owners, attrs, fd, &d.stat); err != nil {
			return false, err
		}
		d.xattrs = attrs
	}
	d.layers = append(d.layers, i)
	return !attrs.opaque, nil
}

// sameAs reports whether an upper directory with these properties is no more
// than a copy of d. Its time does not count: it tells when something was last
// put in or taken out, and what that was is in the archive if it still shows.
func (d *lowerDir) sameAs(st *unix.Stat_t, attrs xattrs) bool {
	return len(d.layers) > 0 &&
		st.Mode == d.stat.Mode && st.Uid == d.stat.Uid && st.Gid == d.stat.Gid &&
		sameRecords(attrs.records, d.xattrs.records)
}

func sameRecords(one, two []xattr) bool {
	return slices.EqualFunc(one, two, func(a, b xattr) bool {
		return a.name == b.name && string(a.value) == string(b.value)
	})
}

// resolveMax keeps a path below PATH_MAX; deeper ones are walked in pieces.
const resolveMax = 3500

// openBeneath opens the directory rel below root without following any
// symbolic link.
func openBeneath(root int, rel string) (int, error) {
	at := root
	for {
		piece, rest := rel, ""
		if len(rel) > resolveMax {
			cut := strings.LastIndexByte(rel[:resolveMax], '/')
			piece, rest = rel[:cut], rel[cut+1:]
		}
		fd, err := confine.Open(at, piece, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, confine.Beneath|confine.NoSymlinks)
		if at != root {
			_ = unix.Close(at)
		}
		if err != nil || rest == "" {
			return fd, err
		}
		at, rel = fd, rest
	}
}
