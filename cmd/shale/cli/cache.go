package cli

import (
	"context"
	"math"
	"time"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/gc"
	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/storage"
)

// buildCache is the content that builds leave in the store to make later builds faster.
type buildCache interface {
	// Steps returns the layers that only the cache keeps.
	Steps() ([]cache.Usage, error)
	// PruneSteps removes such layers and returns them; see cache.Prune.
	PruneSteps(ctx context.Context, policy cache.Policy) ([]cache.Usage, error)
	// Mounts returns the directories of RUN --mount=type=cache.
	Mounts() ([]cachemount.Mount, error)
	// RemoveMount removes a cache mount if it is not in use, and reports whether it
	// did.
	RemoveMount(m cachemount.Mount) (bool, error)
	// Sources returns the git repositories and downloads that the cache keeps.
	Sources() ([]shelf.Usage, error)
	// PruneSources removes those sources that are not in use and returns them.
	PruneSources(policy shelf.Policy) ([]shelf.Usage, error)
	// Free returns the number of free bytes on the disk of the cache.
	Free() (int64, error)
}

// storeCache implements buildCache for a store.
type storeCache struct{ *gc.Cache }

var _ buildCache = storeCache{}

func openCache(store *storage.Store) (storeCache, error) {
	c, err := builder.OpenCache(store)
	return storeCache{c}, err
}

// Sources implements buildCache.
func (c storeCache) Sources() ([]shelf.Usage, error) {
	var list []shelf.Usage
	for _, s := range c.Cache.Sources {
		entries, err := s.List()
		if err != nil {
			return list, err
		}
		list = append(list, entries...)
	}
	return list, nil
}

// PruneSources implements buildCache.
func (c storeCache) PruneSources(policy shelf.Policy) ([]shelf.Usage, error) {
	var list []shelf.Usage
	for _, s := range c.Cache.Sources {
		removed, err := s.Trim(policy)
		if err != nil {
			return list, err
		}
		list = append(list, removed...)
	}
	return list, nil
}

// Steps implements buildCache.
func (c storeCache) Steps() ([]cache.Usage, error) { return cache.Collect(c.Index, c.Store) }

// PruneSteps implements buildCache.
func (c storeCache) PruneSteps(ctx context.Context, policy cache.Policy) ([]cache.Usage, error) {
	return cache.Prune(ctx, c.Index, c.Store, policy)
}

// Mounts implements buildCache.
func (c storeCache) Mounts() ([]cachemount.Mount, error) { return c.Cache.Mounts.List() }

// RemoveMount implements buildCache.
func (c storeCache) RemoveMount(m cachemount.Mount) (bool, error) { return c.Cache.Mounts.Remove(m) }

// Free implements buildCache.
func (c storeCache) Free() (int64, error) {
	sp, err := storage.SpaceOf(c.Store.GraphRoot())
	return int64(min(sp.Free, math.MaxInt64)), err
}

// usedBefore reports whether used is not after until, or until is zero.
func usedBefore(used, until time.Time) bool {
	return until.IsZero() || !used.After(until)
}
