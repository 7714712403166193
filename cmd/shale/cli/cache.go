package cli

import (
	"context"
	"time"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/storage"
)

// buildCache is what builds leave in the store to be faster next time.
type buildCache interface {
	// Steps lists layers that only the cache keeps.
	Steps() ([]cache.Usage, error)
	// PruneSteps removes such layers; see cache.Prune.
	PruneSteps(ctx context.Context, policy cache.Policy) ([]cache.Usage, error)
	// Mounts lists the directories of RUN --mount=type=cache.
	Mounts() ([]cachemount.Mount, error)
	// RemoveMount removes one that is not in use and tells whether it did.
	RemoveMount(m cachemount.Mount) (bool, error)
	// Sources lists git repositories and downloads.
	Sources() ([]shelf.Usage, error)
	// PruneSources removes those that are not in use.
	PruneSources(policy shelf.Policy) ([]shelf.Usage, error)
}

// storeCache is the build cache of a store.
type storeCache struct {
	store  *storage.Store
	dir    string
	mounts *cachemount.Caches
	// sources are where builds keep what they fetched.
	sources []shelf.Shelf
}

var _ buildCache = (*storeCache)(nil)

func openCache(store *storage.Store) (*storeCache, error) {
	dir, err := store.StateDir(builder.CacheState)
	if err != nil {
		return nil, err
	}
	mounts, err := store.StateDir(builder.CacheMountState)
	if err != nil {
		return nil, err
	}
	c := &storeCache{store: store, dir: dir, mounts: cachemount.New(mounts)}
	for _, name := range []string{builder.GitState, builder.DownloadState} {
		dir, err := store.StateDir(name)
		if err != nil {
			return nil, err
		}
		c.sources = append(c.sources, shelf.Shelf(dir))
	}
	return c, nil
}

func (c *storeCache) Sources() ([]shelf.Usage, error) {
	var list []shelf.Usage
	for _, s := range c.sources {
		entries, err := s.List()
		if err != nil {
			return list, err
		}
		list = append(list, entries...)
	}
	return list, nil
}

func (c *storeCache) PruneSources(policy shelf.Policy) ([]shelf.Usage, error) {
	var list []shelf.Usage
	for _, s := range c.sources {
		removed, err := s.Trim(policy)
		if err != nil {
			return list, err
		}
		list = append(list, removed...)
	}
	return list, nil
}

func (c *storeCache) Steps() ([]cache.Usage, error) { return cache.Collect(c.dir, c.store) }

func (c *storeCache) PruneSteps(ctx context.Context, policy cache.Policy) ([]cache.Usage, error) {
	return cache.Prune(ctx, c.dir, c.store, policy)
}

func (c *storeCache) Mounts() ([]cachemount.Mount, error) { return c.mounts.List() }

func (c *storeCache) RemoveMount(m cachemount.Mount) (bool, error) { return c.mounts.Remove(m) }

// usedBefore says whether something last used at used falls under until; a
// zero until takes everything.
func usedBefore(used, until time.Time) bool {
	return until.IsZero() || !used.After(until)
}
