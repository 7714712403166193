package rootfs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/overlay/diff"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m, nil)) }

// making is a Mounter for one build with its own store.
type making struct {
	*rootfs.Mounter
	t     *testing.T
	store *storage.Store
}

func newMaking(ctx context.Context, t *testing.T) *making {
	t.Helper()
	store := storetest.Open(t, storetest.NewRoots(t))
	dir, err := store.StateDir("tmp")
	if err != nil {
		t.Fatal(err)
	}
	return &making{Mounter: rootfs.New(ctx, store, dir, nil, nil), t: t, store: store}
}

// finish ends the build and checks that no files are left.
func (m *making) finish() {
	m.t.Helper()
	if err := m.Close(); err != nil {
		m.t.Error(err)
	}
	left, err := os.ReadDir(filepath.Join(m.store.GraphRoot(), "shale", "staging"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	for _, e := range left {
		m.t.Errorf("staging directory %s is left behind", e.Name())
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		m.t.Fatal(err)
	}
	if strings.Contains(string(mounts), m.store.GraphRoot()+"/shale/staging/") {
		m.t.Error("an overlay is still mounted")
	}
}

func (m *making) create(base rootfs.Base, fill func(ctx context.Context, root string) error) *rootfs.Draft {
	m.t.Helper()
	d, err := m.Create(m.t.Context(), base, fill)
	if err != nil {
		m.t.Fatal(err)
	}
	return d
}

func (m *making) layer(d *rootfs.Draft) storage.Layer {
	m.t.Helper()
	id, err := d.Layer(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	l, err := m.store.Layer(id)
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

var when = time.Unix(1700000000, 0)

func write(root, name, content string) error {
	path := filepath.Join(root, name)
	return errors.Join(os.WriteFile(path, []byte(content), 0o644), os.Chtimes(path, when, when))
}

func want(root, name, content string) error {
	got, err := os.ReadFile(filepath.Join(root, name))
	if err == nil && string(got) != content {
		err = fmt.Errorf("%s has %q, want %q", name, got, content)
	}
	return err
}

// round is step i of a chain of steps. It reads, changes and removes files of earlier
// steps.
func round(i int, root string) error {
	if i > 0 {
		if err := errors.Join(want(root, "log", strings.Repeat(".", i)), want(root, fmt.Sprint("only", i-1), "x")); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(root, fmt.Sprint("only", i-1))); err != nil {
			return err
		}
	}
	return errors.Join(write(root, "log", strings.Repeat(".", i+1)), write(root, fmt.Sprint("only", i), "x"))
}

func TestStepsBuildOnDrafts(t *testing.T) {
	const steps = 12
	chain := func(wait func(m *making, before *rootfs.Draft) error) []digest.Digest {
		m := newMaking(t.Context(), t)
		var last *rootfs.Draft
		for i := range steps {
			before := last
			last = m.create(rootfs.Base{Draft: before}, func(_ context.Context, root string) error {
				if before != nil {
					if err := wait(m, before); err != nil {
						return err
					}
				}
				return round(i, root)
			})
		}
		top := m.layer(last)
		layers, err := m.store.Chain(top.ID)
		if err != nil {
			t.Fatal(err)
		}
		var ids []digest.Digest
		for _, l := range layers {
			ids = append(ids, l.DiffID)
		}
		m.finish()
		return ids
	}
	atOnce := chain(func(*making, *rootfs.Draft) error { return nil })
	if len(atOnce) != steps {
		t.Fatalf("%d layers", len(atOnce))
	}
	// The draft below is committed, by a rename, while it is mounted.
	moved := chain(func(_ *making, before *rootfs.Draft) error {
		_, err := before.Layer(t.Context())
		return err
	})
	if diff := cmp.Diff(atOnce, moved); diff != "" {
		t.Errorf("layers depend on when they are recorded:\n%s", diff)
	}
}

func TestChainIsKnownBeforeTheLayer(t *testing.T) {
	m := newMaking(t.Context(), t)
	a := m.create(rootfs.Base{}, func(_ context.Context, root string) error { return write(root, "a", "1") })
	b := m.create(rootfs.Base{Draft: a}, func(_ context.Context, root string) error { return write(root, "b", "2") })
	first, second := m.layer(a), m.layer(b)
	if second.Parent != first.ID {
		t.Errorf("b is on %s, not on %s", second.Parent, first.ID)
	}
	got, err := b.Chain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.FromString(first.DiffID.String() + " " + second.DiffID.String()); got != want {
		t.Errorf("chainID is %s, want %s", got, want)
	}
	m.finish()
}

// If the layer of a draft already exists, the draft must be removed, but only after the
// drafts that are built on its files.
func TestKnownLayerStaysWhileUsed(t *testing.T) {
	m := newMaking(t.Context(), t)
	fill := func(_ context.Context, root string) error { return write(root, "a", "1") }
	known := m.layer(m.create(rootfs.Base{}, fill))
	again := m.create(rootfs.Base{}, fill)
	top := m.create(rootfs.Base{Draft: again}, func(ctx context.Context, root string) error {
		id, err := again.Layer(ctx)
		if err == nil && id != known.ID {
			err = fmt.Errorf("layer %s, want %s", id, known.ID)
		}
		return errors.Join(err, want(root, "a", "1"))
	})
	if got := m.layer(top); got.Parent != known.ID {
		t.Errorf("built on %s, want %s", got.Parent, known.ID)
	}
	m.finish()
}

func TestDraftThatCannotBePacked(t *testing.T) {
	m := newMaking(t.Context(), t)
	good := m.create(rootfs.Base{}, func(_ context.Context, root string) error { return write(root, "a", "1") })
	bad := m.create(rootfs.Base{Draft: good}, func(_ context.Context, root string) error { return write(root, ".wh.b", "") })
	started := make(chan struct{})
	on, err := m.Create(t.Context(), rootfs.Base{Draft: bad}, func(ctx context.Context, root string) error {
		close(started)
		_, err := bad.Layer(ctx)
		if !errors.Is(err, diff.ErrReservedName) {
			return fmt.Errorf("error is %w, want %w", err, diff.ErrReservedName)
		}
		return want(root, ".wh.b", "")
	})
	select {
	case <-started:
		if err != nil {
			t.Error(err)
		} else if _, err := on.Layer(t.Context()); !errors.Is(err, diff.ErrReservedName) {
			t.Errorf("what is built on it: %v, want %v", err, diff.ErrReservedName)
		}
	default:
		// The draft had already failed at that time.
		if !errors.Is(err, diff.ErrReservedName) {
			t.Errorf("error is %v, want %v", err, diff.ErrReservedName)
		}
	}
	if !errors.Is(bad.Failed(), diff.ErrReservedName) {
		t.Errorf("failed with %v", bad.Failed())
	}
	m.layer(good)
	m.finish()
	layers, err := m.store.Layers()
	if err != nil || len(layers) != 1 {
		t.Errorf("%d layers, error %v; want the first alone", len(layers), err)
	}
}

func TestStepsThatFail(t *testing.T) {
	boom := errors.New("boom")
	m := newMaking(t.Context(), t)
	base := m.create(rootfs.Base{}, func(_ context.Context, root string) error { return write(root, "a", "1") })
	if _, err := m.Create(t.Context(), rootfs.Base{Draft: base}, func(context.Context, string) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("error is %v, want %v", err, boom)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.Create(ctx, rootfs.Base{Draft: base}, func(context.Context, string) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want %v", err, context.Canceled)
	}
	// Cancelling a step must not affect its base.
	m.layer(base)
	m.finish()
}

func TestBuildThatIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := newMaking(ctx, t)
	d := m.create(rootfs.Base{}, func(_ context.Context, root string) error {
		cancel()
		return write(root, "a", "1")
	})
	if _, err := d.Layer(t.Context()); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want %v", err, context.Canceled)
	}
	m.finish()
}

func TestSideBySide(t *testing.T) {
	m := newMaking(t.Context(), t)
	shared := m.create(rootfs.Base{}, func(_ context.Context, root string) error { return write(root, "shared", "s") })
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			on := shared
			for j := range 5 {
				d, err := m.Create(t.Context(), rootfs.Base{Draft: on}, func(_ context.Context, root string) error {
					return errors.Join(want(root, "shared", "s"), write(root, fmt.Sprint(i), fmt.Sprint(j)))
				})
				if err != nil {
					t.Error(err)
					return
				}
				on = d
			}
			if _, err := on.Layer(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	m.finish()
	if layers, err := m.store.Layers(); err != nil || len(layers) != 21 {
		t.Errorf("%d layers, error %v", len(layers), err)
	}
}
