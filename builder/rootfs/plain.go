package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/shale-build/shale/overlay/plain"
	"github.com/shale-build/shale/storage"
)

// Place is the container's root directory. It is used by one step at a time. Between
// steps it holds the container's own files. It is implemented by runtime/inplace.Root.
type Place interface {
	// Dir returns the directory. Spared returns the paths in it that stay in place while
	// steps run. Protected returns those of them in which an image must not have files
	// either. These paths have no leading slash.
	Dir() string
	Spared() ([]string, error)
	Protected() []string
	// Nursery returns a directory on the same mount. New directories are created in it
	// and then moved to Dir.
	Nursery() string
	// Begin moves the files of the steps into the directory. End allows the container's
	// own files to return.
	Begin() error
	End()
	// Leave and Discard announce that no further step follows. Leave must be called
	// between Begin and End, and Discard after End.
	Leave() error
	Discard()
}

// directories implements the native way without mounts: views are made of hard links, and
// commands run in copies. See package overlay/plain.
type directories struct {
	// place is nil if each step runs in a directory of its own.
	place Place
	// owners is nil if files have their owners in the inode.
	owners plain.Owners
	// steps is the number of steps that may follow, see Mounter.Expect.
	steps atomic.Int64

	mu       sync.Mutex
	listings map[string]func() (*plain.Listing, error)
	free     []*plain.Tree
	all      []*plain.Tree
}

// MountNothing switches m to ordinary directories without mounts. If place is set, steps
// run there, one at a time. Otherwise each step runs in its own copy. It must be called
// before m is used.
func (m *Mounter) MountNothing(place Place) {
	m.plain = &directories{place: place, listings: map[string]func() (*plain.Listing, error){}}
	if m.owners != nil {
		m.plain.owners = m.owners
	}
}

// Part returns a function that gives a file an inode of its own, separate from the inode
// in the lower layer. The file must be in a root that CreateFiles passes to fill. Part
// returns nil for overlay mounts, because the kernel copies such files itself.
func (m *Mounter) Part() func(dir int, name string) error {
	if m.plain == nil {
		return nil
	}
	return func(dir int, name string) error { return plain.Part(m.plain.owners, dir, name) }
}

// Expect sets the maximum number of calls of Create that follow. It lets Create give up
// the place after the last step, because then no step needs the files.
func (m *Mounter) Expect(steps int) {
	if m.plain != nil {
		m.plain.steps.Store(int64(steps))
	}
}

type fillFunc = func(ctx context.Context, root string) error

// createPlain waits for base, makes a layer on it, and returns the layer as a settled
// draft.
func (m *Mounter) createPlain(ctx context.Context, base Base, create func(parent string, lower []string) (storage.Layer, error)) (*Draft, error) {
	parent := base.Layer
	if base.Draft != nil {
		var err error
		if parent, err = base.Draft.Layer(ctx); err != nil {
			return nil, err
		}
	}
	lower, err := m.Lowers(parent)
	if err != nil {
		return nil, err
	}
	d := &Draft{mounts: m, base: base, idle: make(chan struct{})}
	if d.layer, err = create(parent, lower); err != nil {
		return nil, err
	}
	if d.dirs, err = m.lowersOver(d.layer.ID, lower); err != nil {
		return nil, err
	}
	for _, s := range []*stage{&d.filled, &d.packed, &d.settled} {
		s.done = make(chan struct{})
		s.end(nil)
	}
	close(d.idle)
	d.chain, err = d.chainOn(ctx, d.layer.DiffID)
	return d, err
}

// InPlace reports whether steps run in the container's own root directory, where no file
// system can be mounted.
func (m *Mounter) InPlace() bool { return m.plain != nil && m.plain.place != nil }

// listing returns the merged content of the layer directories, topmost first.
func (d *directories) listing(lower []string) (*plain.Listing, error) {
	if len(lower) == 0 {
		return plain.EmptyOf(d.owners), nil
	}
	key := strings.Join(lower, "\x00")
	d.mu.Lock()
	once := d.listings[key]
	if once == nil {
		once = sync.OnceValues(func() (*plain.Listing, error) {
			below, err := d.listing(lower[1:])
			if err != nil {
				return nil, err
			}
			return below.Over(lower[0])
		})
		d.listings[key] = once
	}
	d.mu.Unlock()
	return once()
}

func (d *directories) view(target string, lower, paths []string) error {
	l, err := d.listing(lower)
	if err != nil {
		return err
	}
	if err := os.Chmod(target, 0o755); err != nil { //nolint:gosec // the root of a file system is world-readable
		return fmt.Errorf("show layers in %s: %w", target, err)
	}
	return l.Link(target, paths...)
}

// fill copies the merged content of lower to dir.
func (d *directories) fill(ctx context.Context, dir string, lower []string) (err error) {
	l, err := d.listing(lower)
	if err != nil {
		return err
	}
	t, err := plain.OpenTree(dir, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	return t.Become(ctx, l)
}

// createLinked makes a layer from the changes of fill. fill may replace files but must
// not write to them. It may read only paths. If paths is empty, it may read everything.
func (m *Mounter) createLinked(ctx context.Context, base string, lower, paths []string, fill fillFunc) (storage.Layer, error) {
	l, err := m.plain.listing(lower)
	if err != nil {
		return storage.Layer{}, err
	}
	return m.store.CreateLayer(ctx, base, func(ctx context.Context, st storage.Staging) (_ storage.Diff, err error) {
		if err := l.Link(st.Merged, paths...); err != nil {
			return storage.Diff{}, err
		}
		t, err := l.OpenLinked(st.Merged, paths...)
		if err != nil {
			return storage.Diff{}, err
		}
		defer func() { err = errors.Join(err, t.Close()) }()
		t.Settle()
		if err := fill(ctx, st.Merged); err != nil {
			return storage.Diff{}, err
		}
		changes, err := t.Changes(ctx)
		if err != nil {
			return storage.Diff{}, err
		}
		if err := changes.MoveInto(ctx, st.Upper); err != nil {
			return storage.Diff{}, err
		}
		return m.pack(ctx, nil, st.Upper)
	})
}

// createInTree makes a layer from the changes that a step makes in its own tree.
func (m *Mounter) createInTree(ctx context.Context, base string, lower []string, fill fillFunc) (_ storage.Layer, err error) {
	d := m.plain
	l, err := d.listing(lower)
	if err != nil {
		return storage.Layer{}, err
	}
	t, release, err := m.takeTree(l)
	if err != nil {
		return storage.Layer{}, err
	}
	defer release()
	last := d.steps.Add(-1) == 0 && d.place != nil
	layer, err := m.store.CreateLayer(ctx, base, func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
		if err := t.Become(ctx, l); err != nil {
			return storage.Diff{}, err
		}
		t.Settle()
		t.Touch()
		if err := fill(ctx, t.Dir()); err != nil {
			return storage.Diff{}, err
		}
		changes, err := t.Changes(ctx)
		if err != nil {
			return storage.Diff{}, err
		}
		if err := changes.Into(ctx, st.Upper); err != nil {
			return storage.Diff{}, err
		}
		if last {
			// The image's files in the tree are not needed any more. They are removed in
			// parallel with packing, before the kernel writes them to disk.
			if err := d.place.Leave(); err != nil {
				return storage.Diff{}, err
			}
		}
		if err := d.special(l, st.Upper); err != nil {
			return storage.Diff{}, err
		}
		return m.pack(ctx, nil, st.Upper)
	})
	if err != nil || last {
		return layer, err
	}
	after, err := m.lowersOver(layer.ID, lower)
	if err != nil {
		return layer, err
	}
	next, err := d.listing(after)
	if err != nil {
		return layer, err
	}
	t.Adopt(next, after[0])
	return layer, nil
}

// special adds the empty directories that a container creates in an image without them.
// In place, these paths are mounts of the container itself.
func (d *directories) special(l *plain.Listing, upper string) error {
	if d.place == nil {
		return nil
	}
	for _, name := range []string{"proc", "dev", "sys"} {
		if l.Has(name) {
			continue
		}
		if err := os.Mkdir(filepath.Join(upper, name), 0o755); err != nil && !errors.Is(err, os.ErrExist) { //nolint:gosec // as in every image
			return fmt.Errorf("make /%s: %w", name, err)
		}
	}
	return nil
}

// takeTree returns a tree that is reserved for the caller until release.
func (m *Mounter) takeTree(l *plain.Listing) (*plain.Tree, func(), error) {
	d := m.plain
	if d.place == nil {
		return m.ownTree()
	}
	for _, p := range d.place.Protected() {
		if l.Fills(p) {
			return nil, nil, fmt.Errorf("the image has files at /%s, which the build itself uses here: move the build context, or the store (--root), to a path that the image does not have, such as a volume", p)
		}
	}
	if err := d.place.Begin(); err != nil {
		return nil, nil, err
	}
	if len(d.all) == 0 {
		t, err := plain.OpenTree(d.place.Dir(), func() (*plain.Spared, error) {
			paths, err := d.place.Spared()
			return plain.NewSpared(paths), err
		})
		if err != nil {
			d.place.End()
			return nil, nil, err
		}
		if err := storage.Spread(d.place.Nursery()); err != nil {
			m.logger.Debug("directories are not spread over the file system", "error", err)
		}
		t.MakeIn(d.place.Nursery())
		d.all = append(d.all, t)
	}
	return d.all[0], d.place.End, nil
}

// ownTree returns a free tree or makes a new one.
func (m *Mounter) ownTree() (*plain.Tree, func(), error) {
	d := m.plain
	d.mu.Lock()
	defer d.mu.Unlock()
	var t *plain.Tree
	if n := len(d.free); n > 0 {
		t, d.free = d.free[n-1], d.free[:n-1]
	} else {
		d.mu.Unlock()
		dir, err := m.NewDir("tree")
		d.mu.Lock()
		if err == nil {
			err = os.Chmod(dir, 0o755) //nolint:gosec // the root of a file system is world-readable
		}
		if err == nil {
			t, err = plain.OpenTree(dir, nil)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("make a root file system: %w", err)
		}
		d.all = append(d.all, t)
	}
	return t, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.free = append(d.free, t)
	}, nil
}

func (d *directories) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, t := range d.all {
		errs = append(errs, t.Close())
	}
	d.all, d.free = nil, nil
	return errors.Join(errs...)
}
