package builder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/go-units"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/gc"
	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/storage"
)

// OpenCache returns the build cache of a store, with the directories of all its parts.
func OpenCache(store *storage.Store) (*gc.Cache, error) {
	dirs := map[string]string{}
	for _, name := range []string{CacheState, CacheMountState, GitState, DownloadState} {
		dir, err := store.StateDir(name)
		if err != nil {
			return nil, err
		}
		dirs[name] = dir
	}
	return &gc.Cache{
		Store: store, Index: dirs[CacheState], Mounts: cachemount.New(dirs[CacheMountState]),
		Sources: []shelf.Shelf{shelf.Shelf(dirs[GitState]), shelf.Shelf(dirs[DownloadState])},
	}, nil
}

// collect removes the parts of the build cache that the policy in Options.GC does not
// keep. It does so only after a build that added layers; err is the error of that build.
// An error of collect is logged and does not fail the build.
func (b *build) collect(ctx context.Context, err error) {
	if b.opts.GC == nil || b.index == nil || ctx.Err() != nil || errors.Is(err, storage.ErrRemoved) || !b.deps.Store.Recorded() {
		return
	}
	built, err := OpenCache(b.deps.Store)
	if err != nil {
		b.deps.Logger.Warn("the build cache is not kept within its bounds", "error", err)
		return
	}
	began := time.Now()
	removed, err := built.Collect(ctx, *b.opts.GC, began)
	if err != nil {
		b.deps.Logger.Warn("the build cache is not kept within its bounds", "error", err)
	}
	if removed.Entries == 0 {
		return
	}
	s := newStep(b.deps.Progress, "removing unused build cache")
	s.note(fmt.Sprintf("%d entries, %s", removed.Entries, units.HumanSizeWithPrecision(float64(removed.Bytes), 3)))
	s.done(nil)
}
