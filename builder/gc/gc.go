// Package gc limits the size of the build cache of a store.
//
// The cache consists of the layers that no image uses, of git repositories and downloads,
// and of the directories of RUN --mount=type=cache. Collect removes the least recently
// used of these together, according to a Policy. It does not remove layers of images, or
// objects that a build, a step or a fetch is using.
package gc

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/storage"
)

// Store is the part of a store that contains the layers of the cache.
type Store interface {
	cache.LayerStore
	GraphRoot() string
	// FreeReserve releases reserved disk space, so that layers can be removed on a full
	// disk. KeepReserve reserves it again.
	FreeReserve()
	KeepReserve()
}

// Cache is the build cache of a store.
type Cache struct {
	Store Store
	// Index is the directory of package cache.
	Index  string
	Mounts *cachemount.Caches
	// Sources are the directories in which builds keep fetched sources.
	Sources []shelf.Shelf
}

// Removed is the number and the size of the objects that Collect has removed.
type Removed struct {
	Entries int
	Bytes   int64
}

// stampName is a file in Index. Its modification time is the time of the last full
// Collect. Within interval after that, Collect does not list the cache again if the disk
// has enough free space.
const (
	stampName = "collected"
	interval  = time.Minute
)

// Collect removes the objects that limits do not keep, but not those that another build
// uses. Within a minute after it last listed the cache, it does nothing if the disk has
// enough free space.
func (c *Cache) Collect(ctx context.Context, limits Limits, now time.Time) (Removed, error) {
	sp, err := storage.SpaceOf(c.Store.GraphRoot())
	if err != nil {
		return Removed{}, err
	}
	p, free := limits.On(sp.Size), int64(min(sp.Free, math.MaxInt64))
	stamp := filepath.Join(c.Index, stampName)
	if info, err := os.Stat(stamp); err == nil && now.Sub(info.ModTime()) < interval && free >= p.MinFree {
		return Removed{}, nil
	}
	if sp.Full() {
		c.Store.FreeReserve()
		defer c.Store.KeepReserve()
	}
	removed, err := c.collect(ctx, p, free, now)
	if err == nil {
		err = touch(stamp)
	}
	return removed, err
}

func (c *Cache) collect(ctx context.Context, p Policy, free int64, now time.Time) (Removed, error) {
	entries, mounts, err := c.entries()
	if err != nil {
		return Removed{}, err
	}
	until, some := p.Cutoff(entries, free, now)
	if !some {
		return Removed{}, nil
	}
	var removed Removed
	steps, err := cache.Prune(ctx, c.Index, c.Store, cache.Policy{Until: until})
	for _, u := range steps {
		removed.add(u.Size)
	}
	if err != nil {
		return removed, err
	}
	for _, s := range c.Sources {
		list, err := s.Trim(shelf.Policy{Until: until, KeepEntries: math.MaxInt})
		for _, u := range list {
			removed.add(u.Size)
		}
		if err != nil {
			return removed, fmt.Errorf("remove sources: %w", err)
		}
	}
	for _, m := range mounts {
		if m.Used.After(until) {
			continue
		}
		gone, err := c.Mounts.Remove(m)
		if err != nil {
			return removed, err
		}
		if gone {
			removed.add(m.Size)
		}
	}
	return removed, nil
}

func (r *Removed) add(size int64) {
	r.Entries++
	r.Bytes += max(0, size)
}

// entries returns all objects of the cache. Cache mounts that a step is using are
// included, although they cannot be removed.
func (c *Cache) entries() ([]Entry, []cachemount.Mount, error) {
	var entries []Entry
	steps, err := cache.Collect(c.Index, c.Store)
	if err != nil {
		return nil, nil, err
	}
	for _, u := range steps {
		entries = append(entries, Entry{u.Size, u.Used})
	}
	for _, s := range c.Sources {
		list, err := s.List()
		if err != nil {
			return nil, nil, fmt.Errorf("list sources: %w", err)
		}
		for _, u := range list {
			entries = append(entries, Entry{u.Size, u.Used})
		}
	}
	mounts, err := c.Mounts.List()
	for _, m := range mounts {
		entries = append(entries, Entry{m.Size, m.Used})
	}
	return entries, mounts, err
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		now := time.Now()
		err = os.Chtimes(path, now, now)
	}
	if err != nil {
		return fmt.Errorf("note when the cache was collected: %w", err)
	}
	return nil
}
