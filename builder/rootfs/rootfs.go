// Package rootfs turns layers into directories and directories into layers.
//
// Layers are shown by an overlay mount. The mount is read-only for copies and bind
// mounts. It is writable over a staging directory of the store for a step that makes the
// next layer. It can also be writable over a directory that is discarded. All mounts are
// in the private mount namespace and the temporary directory of the build, and Close
// unmounts them. Package overlay mounts the overlays, and package overlay/diff packs
// upper directories.
package rootfs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shale-build/shale/internal/rmtree"
	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/overlay/diff"
	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/storage"
)

// Mounter provides directories for layers. It is safe for concurrent use.
type Mounter struct {
	ctx      context.Context //nolint:containedctx // see New
	store    *storage.Store
	dir      string
	logger   *slog.Logger
	drafts   sync.WaitGroup
	recorder recorder
	owners   *recorded.Owners
	// plain is set if no file systems are mounted.
	plain *directories

	mu    sync.Mutex
	next  int
	upper map[string]string // by the merged directory
	views map[string]*view
	// lowers caches the results of Lowers.
	lowers map[string][]string
}

// view is a read-only mount. It is shared by all callers that request the same layer.
type view struct {
	once    sync.Once
	path    string
	mounted bool
	err     error
}

// New returns a Mounter that creates its directories in dir. dir must be empty, private
// to the build, and on a file system that supports upper directories of an overlay. ctx
// cancels the work in the background. It must be the context of the build, not of a step.
// logger may be nil.
//
// owners holds the recorded owners of files that are owned by root because only one id is
// mapped. It is nil if each file has its own owner.
func New(ctx context.Context, store *storage.Store, dir string, owners *recorded.Owners, logger *slog.Logger) *Mounter {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	m := &Mounter{ctx: ctx, store: store, dir: dir, owners: owners, logger: logger, views: map[string]*view{}, upper: map[string]string{}, lowers: map[string][]string{}}
	m.recorder.mounts = m
	return m
}

// Owners returns the recorded owners that were passed to New.
func (m *Mounter) Owners() *recorded.Owners { return m.owners }

// Lowers returns the directories of layer and its parents, topmost first.
func (m *Mounter) Lowers(layer string) ([]string, error) {
	m.mu.Lock()
	known, ok := m.lowers[layer]
	m.mu.Unlock()
	if ok {
		return known, nil
	}
	lower, err := m.store.LowerDirs(layer)
	if err != nil {
		return nil, fmt.Errorf("find the layers to mount: %w", err)
	}
	if err := m.loadOwners(layer, lower); err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.lowers[layer] = lower
	m.mu.Unlock()
	return lower, nil
}

// Removed returns an error that wraps storage.ErrRemoved if another program removed the
// store, or a layer that this build uses.
func (m *Mounter) Removed() error {
	var dirs []string
	m.mu.Lock()
	for _, lower := range m.lowers {
		dirs = append(dirs, lower...)
	}
	m.mu.Unlock()
	slices.Sort(dirs)
	return m.store.Removed(slices.Compact(dirs))
}

// lowersOver is like Lowers for a layer with known lower directories, topmost first. It
// avoids two locks per layer that the store takes to find a whole chain.
func (m *Mounter) lowersOver(layer string, below []string) ([]string, error) {
	if m.owners != nil {
		return m.Lowers(layer)
	}
	m.mu.Lock()
	known, ok := m.lowers[layer]
	m.mu.Unlock()
	if ok {
		return known, nil
	}
	dir, err := m.store.LayerDir(layer)
	if err != nil {
		return nil, fmt.Errorf("find the directory of a layer: %w", err)
	}
	lower := slices.Concat([]string{dir}, below)
	m.mu.Lock()
	m.lowers[layer] = lower
	m.mu.Unlock()
	return lower, nil
}

// loadOwners loads the recorded owners of a chain of layers that are not stored in xattrs
// of the files. lower are the directories of the layers, topmost first.
func (m *Mounter) loadOwners(layer string, lower []string) error {
	if m.owners == nil || len(lower) == 0 {
		return nil
	}
	chain, err := m.store.Chain(layer)
	if err != nil {
		return fmt.Errorf("find the layers to mount: %w", err)
	}
	for i, l := range chain {
		err := m.owners.Load(l.ID, lower[len(lower)-1-i], func() ([]recorded.Named, error) {
			list, err := m.store.NamedOwners(l.ID)
			named := make([]recorded.Named, len(list))
			for k, n := range list {
				named[k] = recorded.Named{Path: n.Path, Record: recorded.Record{UID: n.UID, GID: n.GID, Type: n.Type, Rdev: n.Rdev}}
			}
			return named, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// View returns a directory that shows layer read-only. The layer "" is empty. The
// directory exists until Close. The caller may read only the paths and the files below
// them. If paths is empty, it may read everything.
func (m *Mounter) View(layer string, paths ...string) (string, error) {
	lower, err := m.Lowers(layer)
	if err != nil {
		return "", err
	}
	return m.ViewOf(lower, paths...)
}

// ViewOf returns a directory that shows the lower directories read-only. They are given
// topmost first. The directory exists until Close. For paths see View.
func (m *Mounter) ViewOf(lower []string, paths ...string) (string, error) {
	if m.plain == nil {
		paths = nil // a mount has the same cost for any paths
	}
	key := strings.Join(lower, "\x00") + "\x00\x00" + strings.Join(paths, "\x00")
	m.mu.Lock()
	v := m.views[key]
	if v == nil {
		v = &view{}
		m.views[key] = v
	}
	m.mu.Unlock()
	v.once.Do(func() { v.path, v.mounted, v.err = m.mountView(lower, paths) })
	return v.path, v.err
}

// mountView makes the directory of a view. mounted reports whether it is a mount, which
// that of no layers is not.
func (m *Mounter) mountView(lower, paths []string) (target string, mounted bool, err error) {
	target, err = m.NewDir("view")
	if err != nil || len(lower) == 0 {
		return target, false, err
	}
	if m.plain != nil {
		return target, false, m.plain.view(target, lower, paths)
	}
	mount := overlay.Mount{Lower: lower, Target: target, UserXattr: m.store.UserXattr()}
	if err := mount.Mount(); err != nil {
		return "", false, err
	}
	return target, true, nil
}

// ScratchOf returns a writable directory with the content of the lower directories.
// release removes it with all changes.
func (m *Mounter) ScratchOf(ctx context.Context, lower []string) (path string, release func() error, err error) {
	dir, err := m.NewDir("scratch")
	if err != nil {
		return "", nil, err
	}
	if m.plain != nil {
		err := errors.Join(os.Chmod(dir, 0o755), m.plain.fill(ctx, dir, lower)) //nolint:gosec // as below
		if err != nil {
			return "", nil, errors.Join(err, rmtree.Remove(dir))
		}
		return dir, func() error { return rmtree.Remove(dir) }, nil
	}
	st := storage.Staging{
		Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work"), Merged: filepath.Join(dir, "merged"),
	}
	for _, d := range []string{st.Upper, st.Work, st.Merged} {
		if err := os.Mkdir(d, 0o755); err != nil { //nolint:gosec // the root of a file system is world-readable
			return "", nil, fmt.Errorf("make scratch directory: %w", err)
		}
	}
	if err := m.mountOver(lower, st); err != nil {
		return "", nil, errors.Join(err, rmtree.Remove(dir))
	}
	return st.Merged, func() error {
		return errors.Join(overlay.Unmount(st.Merged), rmtree.Remove(dir))
	}, nil
}

// Graft makes a layer on base with exactly the content of the layer from.
func (m *Mounter) Graft(ctx context.Context, base, from string) (storage.Layer, error) {
	dirs, err := m.Lowers(from)
	if err != nil {
		return storage.Layer{}, fmt.Errorf("find layer to graft: %w", err)
	}
	return m.store.CreateLayer(ctx, base, func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
		if err := diff.Clone(ctx, dirs[0], st.Upper); err != nil {
			return storage.Diff{}, err
		}
		if m.owners != nil {
			// Files that could not be hard linked were copied. Copy their recorded
			// owners.
			if err := m.owners.CopyLinks(dirs[0], st.Upper); err != nil {
				return storage.Diff{}, err
			}
		}
		// The lower directories are not passed, because the digest of the graft must not
		// depend on its base.
		return m.pack(ctx, nil, st.Upper)
	})
}

func (m *Mounter) mountOver(lower []string, st storage.Staging) error {
	if err := openRoot(st.Upper); err != nil {
		return err
	}
	mount := overlay.Mount{
		Lower: lower, Upper: st.Upper, Work: st.Work, Target: st.Merged,
		UserXattr: m.store.UserXattr(), Volatile: true,
	}
	m.mu.Lock()
	m.upper[st.Merged] = st.Upper
	m.mu.Unlock()
	return mount.Mount()
}

// Upper returns the upper directory of a root that Create or ScratchOf returned. It
// returns "" if nothing is mounted at root.
func (m *Mounter) Upper(root string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.upper[root]
}

// flushAfter is the time after which pack starts to write the data to disk.
const flushAfter = 50 * time.Millisecond

// pack computes the layer that upper contains. If packing takes longer than flushAfter,
// the data is written to disk in parallel, so that the commit waits less.
func (m *Mounter) pack(ctx context.Context, lower []string, upper string) (storage.Diff, error) {
	flush := time.AfterFunc(flushAfter, func() {
		if err := m.store.Sync(); err != nil {
			m.logger.Debug("writing to disk early", "error", err) // the commit reports the error
		}
	})
	defer flush.Stop()
	o := diff.Options{Upper: upper, Lower: lower, UserXattr: m.store.UserXattr(), NamedMarks: m.plain != nil}
	if m.owners != nil {
		o.Owners = m.owners
	}
	res, err := diff.Pack(ctx, o)
	if err != nil {
		return storage.Diff{}, err
	}
	return storage.Diff{
		DiffID: res.DiffID, Size: res.Size, UIDs: res.UIDs, GIDs: res.GIDs, TarSplit: res.TarSplit,
	}, nil
}

// NewDir creates an empty directory for the build. kind is the first part of its name.
func (m *Mounter) NewDir(kind string) (string, error) {
	m.mu.Lock()
	m.next++
	name := kind + "-" + strconv.Itoa(m.next)
	m.mu.Unlock()
	dir := filepath.Join(m.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make directory for the build: %w", err)
	}
	return dir, nil
}

// Close waits for the layers that are still being made and unmounts all views.
func (m *Mounter) Close() error {
	m.drafts.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.plain != nil {
		m.views = map[string]*view{}
		return m.plain.close()
	}
	var errs []error
	for _, v := range m.views {
		if v.mounted {
			errs = append(errs, overlay.Unmount(v.path))
		}
	}
	m.views = map[string]*view{}
	return errors.Join(errs...)
}

// openRoot gives the root of a step's file system the mode 0755, as BuildKit does. The
// driver of containers/storage creates layer directories with mode 0555. In its stores,
// the layer gets the mode of its parent when it is committed.
func openRoot(upper string) error {
	info, err := os.Stat(upper)
	if err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	// Any other mode comes from the driver's option force_mask.
	if info.Mode().Perm() != 0o555 {
		return nil
	}
	if err := os.Chmod(upper, 0o755); err != nil { //nolint:gosec // the root of a file system is world-readable
		return fmt.Errorf("mount an overlay: %w", err)
	}
	return nil
}
