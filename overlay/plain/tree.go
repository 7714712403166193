package plain

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
	"github.com/shale-build/shale/overlay/diff"
)

// Tree is a directory with copies of the files of a listing. Only one goroutine at a time
// may use it.
type Tree struct {
	dir string
	fd  int
	// spared returns the paths that do not belong to the tree.
	spared func() (*Spared, error)
	// nursery is the directory in which directories at the top are created, "" for the
	// tree itself. See MakeIn.
	nursery string

	// rec holds the contents of the directory at the last scan.
	rec *record
	now *Listing
	// dirty is set if the directory may have changed since then.
	dirty bool
}

// Spared is a set of paths below a tree that do not belong to it. They are not listed,
// changed or removed. The paths are clean and have no leading slash.
type Spared struct {
	paths map[string]bool
	// above are the parent directories of the paths.
	above map[string]bool
}

// NewSpared returns the set of the given paths.
func NewSpared(paths []string) *Spared {
	s := &Spared{paths: map[string]bool{}, above: map[string]bool{}}
	for _, p := range paths {
		s.paths[p] = true
		for up := path.Dir(p); up != "." && up != "/"; up = path.Dir(up) {
			s.above[up] = true
		}
	}
	return s
}

// Has reports whether path itself is spared.
func (s *Spared) Has(path string) bool { return s.paths[path] }

// Above reports whether a path below path is spared.
func (s *Spared) Above(path string) bool { return s.above[path] }

// record describes one file of a tree.
type record struct {
	meta

	// origin is the file in a layer that this file is a copy of, nil if it is unknown.
	origin   *Node
	children map[string]*record
}

// OpenTree takes over the directory dir. All its contents except the spared paths belong
// to the tree until Close. spared is called before each look at the directory; nil spares
// nothing.
func OpenTree(dir string, spared func() (*Spared, error)) (*Tree, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	if spared == nil {
		spared = func() (*Spared, error) { return NewSpared(nil), nil }
	}
	return &Tree{dir: dir, fd: fd, spared: spared, now: Empty(), rec: &record{}, dirty: true}, nil
}

// OpenLinked takes over a directory that Link created from l with the same paths. Files
// in it may be replaced but must not be written to.
func (l *Listing) OpenLinked(dir string, paths ...string) (*Tree, error) {
	t, err := OpenTree(dir, nil)
	if err != nil {
		return nil, err
	}
	root := l.root
	if len(paths) > 0 {
		root = l.part(paths)
	}
	if t.rec, err = scan(t.fd, nil, NewSpared(nil)); err != nil {
		return nil, errors.Join(fmt.Errorf("look through %s: %w", dir, err), t.Close())
	}
	trace(t.rec, root)
	t.now = l
	return t, nil
}

// trace sets the origins of r and the files below it from n.
func trace(r *record, n *Node) {
	r.origin = n
	for name, c := range n.children {
		if have := r.children[name]; have != nil {
			trace(have, c)
		}
	}
}

// Close closes the tree and leaves the directory as it is.
func (t *Tree) Close() error { return unix.Close(t.fd) }

// Dir returns the path of the directory.
func (t *Tree) Dir() string { return t.dir }

// MakeIn makes the tree create some directories in dir and move them to their place. dir
// must be on the same mount. This applies to directories at the top of the tree and
// beside spared paths. File systems place a directory and its contents on the disk by the
// directory in which it is created (see storage.Spread).
func (t *Tree) MakeIn(dir string) { t.nursery = dir }

// Touch marks the contents as possibly changed.
func (t *Tree) Touch() { t.dirty = true }

// Become changes the tree to the contents of l. Files that already are right are not
// touched. If a spared path is in the way of a file, Become returns an error. If ctx
// ends, it returns the cause of ctx.
func (t *Tree) Become(ctx context.Context, l *Listing) error {
	spared, err := t.spared()
	if err != nil {
		return err
	}
	if t.dirty {
		if t.rec, err = scan(t.fd, t.rec, spared); err != nil {
			return fmt.Errorf("look through %s: %w", t.dir, err)
		}
	}
	t.dirty = true
	p := &placer{
		linker: newLinker(t.fd, l.owners),
		ctx:    ctx, spared: spared, nursery: t.nursery, helpers: newHelpers(),
	}
	defer p.close()
	p.split(t.rec, l.root)
	if _, err := p.dir(t.fd, "", t.rec, l.root); err != nil {
		return fmt.Errorf("fill %s: %w", t.dir, err)
	}
	t.rec.origin = l.root
	if p.relinked.Load() {
		// Additional links changed the change times of files that were recorded before.
		if err := refresh(t.fd, t.rec); err != nil {
			return fmt.Errorf("look through %s: %w", t.dir, err)
		}
	}
	t.now, t.dirty = l, false
	return nil
}

// refresh records the metadata of all files below r again.
func refresh(dir int, r *record) error {
	for name, c := range r.children {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("stat %s: %w", name, err)
		}
		c.meta = metaOf(&st)
		if !c.isDir() {
			continue
		}
		fd, err := openDir(dir, name)
		if err != nil {
			return err
		}
		err = refresh(fd, c)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// placer changes a tree to the contents of a listing.
type placer struct {
	linker
	ctx     context.Context //nolint:containedctx // lives as long as one Become
	spared  *Spared
	nursery string
	// broken are files with several names, at least one of which must be placed. Then all
	// their names are placed again, so that they remain one file.
	broken   map[inode]bool
	relinked atomic.Bool
	helpers  helpers
}

// split finds the files with several names that are not all in place.
func (p *placer) split(r *record, n *Node) {
	if p.broken == nil {
		p.broken = map[inode]bool{}
	}
	for name, c := range n.children {
		var have *record
		if r != nil {
			have = r.children[name]
		}
		if c.isDir() {
			p.split(have, c)
			continue
		}
		if c.nlink > 1 && (have == nil || have.origin != c) {
			p.broken[c.inode()] = true
		}
	}
}

// inPlace reports whether the directory r and everything below it equal n, so that
// nothing in it must be opened.
func (p *placer) inPlace(rel string, r *record, n *Node) bool {
	if r.origin != n || r.mtim != n.mtim || len(r.children) > len(n.children) {
		return false
	}
	around := p.spared.Above(rel)
	matched := 0
	for name, c := range n.children {
		if around && p.spared.Has(path.Join(rel, name)) {
			continue
		}
		have := r.children[name]
		if have == nil || have.isDir() != c.isDir() || have.origin != c {
			return false
		}
		if c.isDir() {
			if !p.inPlace(path.Join(rel, name), have, c) {
				return false
			}
		} else if c.nlink > 1 && p.broken[c.inode()] {
			return false
		}
		matched++
	}
	return matched == len(r.children)
}

// dir changes the contents of the open directory to those of n, and updates r. If n is
// nil, it removes the contents. It reports whether it changed anything in the directory.
func (p *placer) dir(fd int, rel string, r *record, n *Node) (changed bool, err error) {
	if err := p.ctx.Err(); err != nil {
		return false, context.Cause(p.ctx)
	}
	var want map[string]*Node
	if n != nil {
		want = n.children
	}
	for _, name := range slices.Sorted(maps.Keys(r.children)) {
		if want[name] != nil {
			continue
		}
		changed = true
		gone, err := p.clear(fd, path.Join(rel, name), name, r.children[name])
		if err != nil {
			return changed, err
		}
		if gone {
			delete(r.children, name)
		}
	}
	did, err := p.entries(fd, rel, r, want)
	return changed || did, err
}

// entries creates the entries of want in the open directory. It places the files first
// and then the contents of the subdirectories, some of them concurrently.
func (p *placer) entries(fd int, rel string, r *record, want map[string]*Node) (changed bool, err error) {
	at := &place{linker: &p.linker, fd: fd, rel: rel}
	defer at.close()
	var dirs []*below
	for _, name := range slices.Sorted(maps.Keys(want)) {
		n := want[name]
		if p.spared.Has(path.Join(rel, name)) {
			continue
		}
		if !n.isDir() {
			did, err := p.file(at, name, r, n)
			changed = changed || did
			if err != nil {
				return changed, err
			}
			continue
		}
		made, err := p.directory(fd, path.Join(rel, name), name, r)
		changed = changed || made
		if err != nil {
			return changed, err
		}
		dirs = append(dirs, &below{name: name, rel: path.Join(rel, name), made: made, record: r.children[name], node: n})
	}
	var wait sync.WaitGroup
	for _, d := range dirs {
		p.helpers.do(&wait, func() { d.changed, d.err = p.below(fd, d) })
	}
	wait.Wait()
	for _, d := range dirs {
		if d.err != nil {
			return true, d.err
		}
		changed = changed || d.changed
	}
	return changed, nil
}

// below is a subdirectory that is to be filled.
type below struct {
	name, rel string
	made      bool
	record    *record
	node      *Node

	changed bool
	err     error
}

// clear removes a file or directory that the listing does not have. It keeps directories
// that lead to spared paths. It reports whether it removed the name.
func (p *placer) clear(dir int, rel, name string, r *record) (gone bool, err error) {
	if !r.isDir() {
		if err := unix.Unlinkat(dir, name, 0); err != nil {
			return true, fmt.Errorf("remove /%s: %w", rel, err)
		}
		return true, nil
	}
	fd, err := openDir(dir, name)
	if err != nil {
		return false, fmt.Errorf("open /%s: %w", rel, err)
	}
	_, err = p.dir(fd, rel, r, nil)
	_ = unix.Close(fd)
	if errors.Is(err, unix.EMFILE) && !p.spared.Above(rel) {
		return true, rmtree.At(dir, name) // deeper than the limit of file descriptors
	}
	if err != nil {
		return false, err
	}
	r.origin = nil
	if p.spared.Above(rel) || len(r.children) > 0 {
		return false, nil
	}
	if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil {
		return false, fmt.Errorf("remove /%s: %w", rel, err)
	}
	return true, nil
}

// file makes name a copy of n.
func (p *placer) file(at *place, name string, r *record, n *Node) (changed bool, err error) {
	rel := path.Join(at.rel, name)
	have := r.children[name]
	if have != nil && have.origin == n && !p.broken[n.inode()] {
		return false, nil
	}
	if have != nil {
		gone, err := p.clear(at.fd, rel, name, have)
		if err != nil {
			return true, err
		}
		if !gone {
			return true, fmt.Errorf("/%s: the image has a file where a directory is that shale needs for itself: give --root and TMPDIR another place", rel)
		}
	}
	from, err := at.from(n)
	if err != nil {
		return true, err
	}
	linked, err := p.copies.add(from, at.fd, n, name, rel)
	if err != nil {
		return true, fmt.Errorf("/%s: %w", rel, err)
	}
	if linked {
		p.relinked.Store(true)
	}
	return true, r.note(at.fd, name, n)
}

// note records a file that was just placed.
func (r *record) note(dir int, name string, n *Node) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat %s: %w", name, err)
	}
	if r.children == nil {
		r.children = map[string]*record{}
	}
	r.children[name] = &record{meta: metaOf(&st), origin: n}
	return nil
}

// directory creates the directory name with the path rel if it does not exist.
func (p *placer) directory(fd int, rel, name string, r *record) (made bool, err error) {
	have := r.children[name]
	if have != nil && have.isDir() {
		return false, nil
	}
	if have != nil {
		if err := unix.Unlinkat(fd, name, 0); err != nil {
			return true, fmt.Errorf("remove /%s: %w", rel, err)
		}
		delete(r.children, name)
	}
	if err := p.mkdir(fd, rel, name); err != nil {
		return true, fmt.Errorf("make /%s: %w", rel, err)
	}
	if r.children == nil {
		r.children = map[string]*record{}
	}
	r.children[name] = &record{meta: meta{mode: unix.S_IFDIR}, children: map[string]*record{}}
	return true, nil
}

// below changes the directory d in the open directory dir to the contents of its node. It
// changes only the record of d and those below, so it may run concurrently for different
// directories.
func (p *placer) below(dir int, d *below) (changed bool, err error) {
	r, n := d.record, d.node
	if !d.made && p.inPlace(d.rel, r, n) {
		return false, nil
	}
	fd, err := openDir(dir, d.name)
	if err != nil {
		return false, fmt.Errorf("open /%s: %w", d.rel, err)
	}
	defer func() { _ = unix.Close(fd) }()
	inside, err := p.dir(fd, d.rel, r, n)
	if err != nil {
		return true, err
	}
	if !inside && r.origin == n && r.mtim == n.mtim {
		return false, nil
	}
	if err := p.dirMeta(fd, n, d.rel); err != nil {
		return true, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return true, fmt.Errorf("stat /%s: %w", d.rel, err)
	}
	r.meta, r.origin = metaOf(&st), n
	return true, nil
}

// mkdir creates a directory in the open one. It creates it in the nursery if the parent
// is the top of the tree or leads to spared paths, because such a parent did not come
// from the nursery. All other directories have a parent that did. The name in the nursery
// is random, because ext4 uses the name to choose where to look for space.
func (p *placer) mkdir(fd int, rel, name string) error {
	if up := path.Dir(rel); p.nursery == "" || up != "." && !p.spared.Above(up) {
		return unix.Mkdirat(fd, name, 0o700)
	}
	made, err := os.MkdirTemp(p.nursery, "")
	if err != nil {
		return err
	}
	if err := unix.Renameat(unix.AT_FDCWD, made, fd, name); err != nil {
		return errors.Join(err, os.Remove(made))
	}
	return nil
}

// awaitTick returns when later changes will have a change time after the recorded ones.
// The Linux kernel before 6.13 counts change times in ticks.
func awaitTick() {
	var start, now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &start) != nil {
		return
	}
	for range 20 {
		if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now) != nil || now != start {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Settle waits until the tree may be changed. It must be called after Become and before
// the first change, so that Changes finds all changes by their change times.
func (t *Tree) Settle() { awaitTick() }

// Adopt records that the changes found by Changes are now committed as the directory
// layer. l must be the listing with this layer on top.
func (t *Tree) Adopt(l *Listing, layer string) {
	adopt(t.rec, l.root, layer)
	t.now, t.dirty = l, false
}

func adopt(r *record, n *Node, layer string) {
	r.origin = n
	for name, c := range n.children {
		have := r.children[name]
		if c.layer != layer || have == nil || have.isDir() != c.isDir() {
			continue
		}
		if c.isDir() {
			adopt(have, c, layer)
			continue
		}
		have.origin = c
	}
}

// Changes are the changes of a tree since Become.
type Changes struct {
	tree *Tree
	// put are the new or changed files and directories. gone are the deleted names. Both
	// have no leading slash and are sorted, so a directory comes before its contents.
	put, gone []string
	// whole are the new directories whose entire contents are in put.
	whole map[string]bool
}

// Len returns the number of changes.
func (c *Changes) Len() int { return len(c.put) + len(c.gone) }

// Changes returns the differences between the tree and its contents after Become. It
// needs one stat per file, and compares the contents of files that were touched. If ctx
// ends, it returns the cause of ctx.
func (t *Tree) Changes(ctx context.Context) (*Changes, error) {
	spared, err := t.spared()
	if err != nil {
		return nil, err
	}
	t.dirty = true
	after, err := scan(t.fd, t.rec, spared)
	if err != nil {
		return nil, fmt.Errorf("look through %s: %w", t.dir, err)
	}
	f := &finder{ctx: ctx, spared: spared, owners: t.now.owners, out: &Changes{tree: t, whole: map[string]bool{}}, lost: map[inode]bool{}, linked: map[inode]bool{}}
	if _, err := f.dir(&lazyDir{fd: t.fd}, "", t.rec, after); err != nil {
		return nil, fmt.Errorf("compare %s with the layers: %w", t.dir, err)
	}
	f.partners(after)
	slices.Sort(f.out.put)
	f.out.put = slices.Compact(f.out.put)
	slices.Sort(f.out.gone)
	t.rec = after
	return f.out, nil
}

// finder compares two records of a tree.
type finder struct {
	ctx    context.Context //nolint:containedctx // lives as long as one Changes
	spared *Spared
	owners Owners
	out    *Changes
	// lost are files with a deleted name. linked are files with several names, one of
	// which is new.
	lost, linked map[inode]bool
	// left counts the files in the tree that are not added to a layer.
	left int
}

// lazyDir is a directory that is opened on first use. Only few directories of a tree must
// be opened.
type lazyDir struct {
	up   *lazyDir
	name string
	fd   int // negative until the directory is opened
}

func (d *lazyDir) open() (int, error) {
	if d.fd >= 0 {
		return d.fd, nil
	}
	up, err := d.up.open()
	if err != nil {
		return -1, err
	}
	fd, err := openDir(up, d.name)
	if err != nil {
		return -1, err
	}
	d.fd = fd
	return fd, nil
}

func (d *lazyDir) close() {
	if d.fd >= 0 {
		_ = unix.Close(d.fd)
	}
}

// dir compares the contents of a directory and reports whether anything differs.
func (f *finder) dir(fd *lazyDir, dir string, before, after *record) (changed bool, err error) {
	if err := f.ctx.Err(); err != nil {
		return false, context.Cause(f.ctx)
	}
	for name, b := range before.children {
		if after.children[name] != nil {
			continue
		}
		if b.origin == nil || f.spared.Above(path.Join(dir, name)) {
			continue // it never belonged to the image
		}
		changed = true
		f.out.gone = append(f.out.gone, path.Join(dir, name))
		f.lose(b)
	}
	for name := range after.children {
		did, err := f.entry(fd, path.Join(dir, name), name, before.children[name], after.children[name])
		if err != nil {
			return changed, err
		}
		changed = changed || did
	}
	return changed, nil
}

func (f *finder) lose(r *record) {
	if !r.isDir() {
		if r.nlink > 1 {
			f.lost[r.inode()] = true
		}
		return
	}
	for _, c := range r.children {
		f.lose(c)
	}
}

func (f *finder) entry(dir *lazyDir, rel, name string, before, after *record) (changed bool, err error) {
	if before != nil && before.isDir() != after.isDir() {
		f.lose(before)
		before = nil
	}
	if !after.isDir() {
		if before != nil && before.meta == after.meta {
			return false, nil
		}
		if before != nil && before.origin != nil {
			same, err := f.sameAsOrigin(dir, rel, name, before.origin, after)
			if err != nil {
				return false, fmt.Errorf("/%s: %w", rel, err)
			}
			if same {
				if after.nlink == before.nlink {
					after.origin = before.origin
				}
				return false, nil
			}
		}
		if after.kind() == unix.S_IFSOCK {
			f.left++
			return false, nil // a socket is only a name for a connection
		}
		after.origin = nil
		f.out.put = append(f.out.put, rel)
		if after.nlink > 1 {
			f.linked[after.inode()] = true
		}
		return true, nil
	}
	return f.directory(dir, rel, name, before, after)
}

func (f *finder) directory(dir *lazyDir, rel, name string, before, after *record) (changed bool, err error) {
	fd := &lazyDir{up: dir, name: name, fd: -1}
	defer fd.close()
	old := before
	if old == nil {
		old = &record{}
	}
	left := f.left
	inside, err := f.dir(fd, rel, old, after)
	if err != nil {
		return false, err
	}
	switch {
	case before == nil:
		changed = true
		f.out.whole[rel] = f.left == left
	case before.origin == nil:
		changed = inside // it does not belong to the image unless it contains files of it
	case before.ctim == after.ctim && before.ino == after.ino:
	default:
		same, err := f.sameAsOrigin(dir, rel, name, before.origin, after)
		if err != nil {
			return false, fmt.Errorf("/%s: %w", rel, err)
		}
		changed = !same
	}
	if changed {
		f.out.put = append(f.out.put, rel)
	}
	return changed || inside, nil
}

// partners adds an unchanged name of each file that got an additional name. In an
// archive, a hard link needs an entry that it refers to. A file with a deleted name is
// taken to be renamed, so no name is added for it.
func (f *finder) partners(r *record) {
	if len(f.linked) == 0 {
		return
	}
	put := map[string]bool{}
	for _, p := range f.out.put {
		put[p] = true
	}
	first := map[inode]string{}
	var walk func(r *record, dir string)
	walk = func(r *record, dir string) {
		for name, c := range r.children {
			rel := path.Join(dir, name)
			if c.isDir() {
				walk(c, rel)
				continue
			}
			if id := c.inode(); f.linked[id] && !f.lost[id] && !put[rel] {
				if have, ok := first[id]; !ok || rel < have {
					first[id] = rel
				}
			}
		}
	}
	walk(r, "")
	for _, rel := range first {
		f.out.put = append(f.out.put, rel)
	}
}

// sameAsOrigin reports whether a touched file still equals the file in the layer that it
// is a copy of.
func (f *finder) sameAsOrigin(at *lazyDir, rel, name string, n *Node, r *record) (bool, error) {
	if r.mode != n.mode || r.uid != n.uid || r.gid != n.gid {
		return false, nil
	}
	isDir := r.isDir()
	if !isDir && (r.mtim != n.mtim || r.size != n.size || r.rdev != n.rdev) {
		return false, nil
	}
	dir, err := at.open()
	if err != nil {
		return false, fmt.Errorf("open the directory it is in: %w", err)
	}
	k := newLinker(-1, nil)
	defer k.close()
	from, err := k.source(n, path.Dir(rel))
	if err != nil {
		return false, fmt.Errorf("open its layer: %w", err)
	}
	defer func() { _ = unix.Close(from) }()
	if same, err := sameOwner(f.owners, dir, name, from, name); err != nil || !same {
		return false, err
	}
	switch n.kind() {
	case unix.S_IFREG, unix.S_IFDIR:
		return diff.SameContent(dir, name, from, name, n.size, isDir)
	case unix.S_IFLNK:
		one, err1 := readLink(dir, name)
		two, err2 := readLink(from, name)
		return one == two, errors.Join(err1, err2)
	}
	return true, nil
}
