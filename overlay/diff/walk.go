package diff

import (
	"context"
	"os"
	"slices"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// walker lists the upper directory in archive order. It completes all entries except
// regular files, which the readers complete.
type walker struct {
	ctx    context.Context //nolint:containedctx // one walk, one context
	flow   *flow
	prefix string
	lowers *lowers
	owners Owners
	// named is Options.NamedMarks.
	named bool

	batch *batch
	// pending are the directories from the root to the current one that equal their lower
	// directories. They are added to the archive only if an entry below them is.
	pending []entry
	dirents []byte
}

func (w *walker) run(upper string) error {
	fd, err := openAt(unix.AT_FDCWD, upper, unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: upper, Err: err}
	}
	root := w.flow.dirs.add(fd)
	defer w.flow.dirs.release(root)
	attrs, err := readXattrs(fd, w.prefix, dirXattrs)
	if err != nil {
		return err
	}
	if attrs.reference {
		return ErrNotSelfContained
	}
	w.dirents = make([]byte, 64<<10)
	if err := w.children(root, "", place{w.lowers.all(), attrs.opaque}); err != nil {
		return err
	}
	if w.batch != nil {
		w.flow.submit(w.batch)
	}
	w.flow.finish()
	return nil
}

// place describes the position of a directory in the upper directory.
type place struct {
	// below are the layers that have the same directory.
	below layers
	// opaque is set if the contents of these layers are hidden.
	opaque bool
}

// children walks the entries of an open directory. dir is its path with a final slash, ""
// for the root.
func (w *walker) children(d *dirHandle, dir string, at place) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	list, err := listDir(d.fd, w.dirents)
	if err != nil {
		return atPath("list", dir, err)
	}
	if err := w.reserved(dir, list); err != nil {
		return err
	}
	if list, err = w.changes(d.fd, dir, list, at); err != nil {
		return atPath("compare with the layers below", dir, err)
	}
	for _, c := range list {
		if err := w.child(d, dir, c, at); err != nil {
			return err
		}
	}
	return nil
}

// reserved changes the names .wh.NAME in list into deletions of NAME. It returns
// ErrReservedName for those that are not allowed.
func (w *walker) reserved(dir string, list []dirent) error {
	marks := false
	for i, c := range list {
		gone, ok := strings.CutPrefix(c.name, whiteoutPrefix)
		if !ok {
			continue
		}
		if !w.named || c.kind == unix.DT_DIR || gone == "" || strings.HasPrefix(gone, whiteoutPrefix) {
			return atPath("", dir+c.name, ErrReservedName)
		}
		list[i], marks = dirent{name: gone, kind: unix.DT_WHT}, true
	}
	if marks {
		// In the archive, a deletion is at the place of the deleted name.
		slices.SortFunc(list, byName)
	}
	return nil
}

func byName(a, b dirent) int { return strings.Compare(a.name, b.name) }

// changes removes the entries of list that equal the files in the lower layers. It adds
// the names that an opaque directory hides.
func (w *walker) changes(fd int, dir string, list []dirent, at place) ([]dirent, error) {
	hasFiles := slices.ContainsFunc(list, func(c dirent) bool { return c.kind != unix.DT_DIR })
	if len(at.below) == 0 || (!hasFiles && !at.opaque) {
		return list, nil
	}
	low, err := w.lowers.open(strings.TrimSuffix(dir, "/"), at.below)
	if err != nil {
		return nil, err
	}
	defer low.close()
	changed := make([]dirent, 0, len(list))
	for _, c := range list {
		if c.kind != unix.DT_DIR {
			same, err := low.has(fd, c.name)
			if err != nil {
				return nil, err
			}
			if same {
				continue
			}
		}
		changed = append(changed, c)
	}
	if !at.opaque {
		return changed, nil
	}
	below, err := low.names(w.dirents)
	if err != nil {
		return nil, err
	}
	return addHidden(changed, list, below), nil
}

// addHidden adds the names of below that are not in upper to list, marked as deleted. All
// three are sorted.
func addHidden(list, upper []dirent, below []string) []dirent {
	for _, name := range below {
		c := dirent{name: name, kind: unix.DT_WHT}
		if _, ok := slices.BinarySearchFunc(upper, c, byName); !ok {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, byName)
	return list
}

// maxPath is the longest path of a layer. System calls accept a quarter of it (PATH_MAX,
// path_resolution(7)), but a process can create longer paths with one chdir(2) per level.
// Packing needs a file descriptor for each level and memory for each name, so there must
// be a limit.
const maxPath = 16 << 10

func (w *walker) child(d *dirHandle, dir string, c dirent, at place) error {
	e := entry{name: dir + c.name}
	if len(e.name) > maxPath {
		return atPath("", e.name, ErrPathTooLong)
	}
	if c.kind == unix.DT_WHT {
		if err := e.becomeWhiteout(); err != nil {
			return atPath("", e.name, err)
		}
		return w.emit(e)
	}
	if c.kind == unix.DT_REG {
		d.users.Add(1)
		e.dir, e.base = d, c.name
		return w.emit(e)
	}
	if err := unix.Fstatat(d.fd, c.name, &e.stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return atPath("stat", e.name, err)
	}
	switch kind := e.stat.Mode & unix.S_IFMT; {
	case kind == unix.S_IFREG: // the file system does not report types
		c.kind = unix.DT_REG
		return w.child(d, dir, c, at)
	case kind == unix.S_IFDIR:
		return w.directory(d, e, c.name, at)
	case kind == unix.S_IFSOCK:
		return nil // a socket is only a name for a connection; tar has no type for it
	case kind == unix.S_IFCHR && e.stat.Rdev == 0:
		if err := e.becomeWhiteout(); err != nil {
			return atPath("", e.name, err)
		}
		return w.emit(e)
	}
	if err := asNoted(w.owners, d.fd, c.name, &e.stat); err != nil {
		return atPath("", e.name, err)
	}
	return w.special(d, e, c.name)
}

// special emits symbolic links, FIFOs and devices.
func (w *walker) special(d *dirHandle, e entry, base string) (err error) {
	var target string
	if e.stat.Mode&unix.S_IFMT == unix.S_IFLNK {
		if target, err = readLink(d.fd, base, e.stat.Size); err != nil {
			return atPath("read link", e.name, err)
		}
	}
	if err := e.describe(target, nil); err != nil {
		return atPath("", e.name, err)
	}
	return w.emit(e)
}

// directory emits a directory or makes it pending, and walks it.
func (w *walker) directory(parent *dirHandle, e entry, base string, at place) error {
	fd, err := openAt(parent.fd, base, unix.O_DIRECTORY)
	if err != nil {
		return atPath("open", e.name, err)
	}
	d := w.flow.dirs.add(fd)
	defer w.flow.dirs.release(d)
	if err := unix.Fstat(fd, &e.stat); err != nil {
		return atPath("stat", e.name, err)
	}
	attrs, err := readXattrs(fd, w.prefix, dirXattrs)
	if err == nil && attrs.reference {
		err = ErrNotSelfContained
	}
	if err == nil {
		err = asRecorded(w.owners, attrs, fd, &e.stat)
	}
	if err != nil {
		return atPath("", e.name, err)
	}
	lower, err := w.lowers.dir(e.name, at.below)
	if err != nil {
		return err
	}
	e.name += "/"
	if err := e.describe("", attrs.records); err != nil {
		return atPath("", e.name, err)
	}
	inside := place{lower.layers, at.opaque || attrs.opaque}
	if lower.sameAs(&e.stat, attrs) {
		return w.copiedUp(d, e, inside)
	}
	if err := w.emit(e); err != nil {
		return err
	}
	return w.children(d, e.name, inside)
}

// copiedUp walks a directory that is in the archive only if an entry below it is.
func (w *walker) copiedUp(d *dirHandle, e entry, inside place) error {
	w.pending = append(w.pending, e)
	if err := w.children(d, e.name, inside); err != nil {
		return err
	}
	if n := len(w.pending); n > 0 {
		w.pending = w.pending[:n-1] // if an entry was emitted, pending is empty already
	}
	return nil
}

// emit adds the pending directories and then the entry to the archive.
func (w *walker) emit(e entry) error {
	for _, p := range w.pending {
		if err := w.push(p); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return w.push(e)
}

func (w *walker) push(e entry) (err error) {
	if w.batch == nil {
		if w.batch, err = w.flow.newBatch(w.ctx); err != nil {
			return err
		}
	}
	w.batch.entries = append(w.batch.entries, e)
	if len(w.batch.entries) == batchEntries {
		w.flow.submit(w.batch)
		w.batch = nil
	}
	return nil
}

// dirent is an entry of a directory. kind is its DT_ type.
type dirent struct {
	name string
	kind byte
}

// listDir returns the entries of a directory sorted by name. The directory must be at its
// start.
func listDir(fd int, buf []byte) ([]dirent, error) {
	var list []dirent
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(fd, buf) })
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		list = appendDirents(list, buf[:n])
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list, nil
}

func readLink(dir int, name string, size int64) (string, error) {
	buf := make([]byte, size+1)
	for {
		n, err := retry(func() (int, error) { return unix.Readlinkat(dir, name, buf) })
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}
