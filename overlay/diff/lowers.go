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

// lowers finds the lower directory under each directory of the upper directory.
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

// layers are indices of lower directories, topmost first. A path is a visible directory
// in each of them.
type layers []int

func (l *lowers) all() layers {
	all := make(layers, len(l.roots))
	for i := range all {
		all[i] = i
	}
	return all
}

// lowerDir is the merged lower directory under a directory of the upper directory.
type lowerDir struct {
	// layers are the layers that it consists of, empty if there is no such directory.
	layers layers
	// stat and xattrs belong to the directory in the topmost layer.
	stat   unix.Stat_t
	xattrs xattrs
}

// dir looks up rel in the layers that contain its parent. A name that is not a directory,
// for example a whiteout, hides all layers below it.
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

// add adds layer i to d. It reports whether the layers below it are visible too.
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

// sameAs reports whether an upper directory with these properties equals d. The time is
// not compared: it only shows when an entry was added or removed, and a visible change of
// that kind is in the archive anyway.
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

// resolveMax is the longest path that is passed to the kernel, less than PATH_MAX. Longer
// paths are opened in pieces.
const resolveMax = 3500

// openBeneath opens the directory rel below root. It does not follow symbolic links.
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
