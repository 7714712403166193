package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
)

// LayerStore is the part of a store that holds the layers of the cache.
type LayerStore interface {
	Layers() ([]storage.Layer, error)
	Images() ([]storage.Image, error)
	DeleteLayer(id string) error
}

// Layers returns the IDs of all layers that the index in dir knows.
func Layers(dir string) (map[string]bool, error) {
	entries, err := list(dir)
	if err != nil {
		return nil, err
	}
	layers := map[string]bool{}
	for _, e := range entries {
		if e.Layer != "" {
			layers[e.Layer] = true
		}
	}
	return layers, nil
}

// Usage is one layer that only the cache keeps: no image is made of it.
type Usage struct {
	Layer       string
	Parent      string
	Description string
	// Size is of the layer as an uncompressed tar, in bytes.
	Size          int64
	Created, Used time.Time
	// Shared tells that other layers of the cache build on it.
	Shared bool
}

// Collect lists what only the cache keeps, least recently used first.
func Collect(dir string, layers LayerStore) ([]Usage, error) {
	entries, err := list(dir)
	if err != nil {
		return nil, err
	}
	all, err := layers.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	images, err := layers.Images()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	byID := make(map[string]storage.Layer, len(all))
	hasChild := map[string]bool{}
	for _, l := range all {
		byID[l.ID] = l
		hasChild[l.Parent] = true
	}
	inImage := map[string]bool{}
	for _, img := range images {
		for id := img.TopLayer; id != "" && !inImage[id]; id = byID[id].Parent {
			inImage[id] = true
		}
	}
	found := map[string]*Usage{}
	for _, e := range entries {
		l, ok := byID[e.Layer]
		if !ok || inImage[e.Layer] {
			continue
		}
		u := found[e.Layer]
		if u == nil {
			u = &Usage{Layer: l.ID, Parent: l.Parent, Size: l.Size, Created: l.Created, Shared: hasChild[l.ID]}
			found[e.Layer] = u
		}
		if e.Used.After(u.Used) {
			u.Used, u.Description = e.Used, e.Description
		}
	}
	useBelow(found)
	usages := make([]Usage, 0, len(found))
	for _, u := range found {
		usages = append(usages, *u)
	}
	slices.SortFunc(usages, func(a, b Usage) int { return a.Used.Compare(b.Used) })
	return usages, nil
}

// useBelow makes a layer as recently used as those that are built on it: a step that
// is found in the cache asks for nothing below.
func useBelow(found map[string]*Usage) {
	for _, u := range found {
		used := u.Used
		for below := found[u.Parent]; below != nil && below.Used.Before(used); below = found[below.Parent] {
			below.Used = used
		}
	}
}

// Policy says what Prune may remove.
type Policy struct {
	// Until keeps what was used after it; zero keeps nothing for its age.
	Until time.Time
	// KeepBytes stops once no more than this is left; 0 removes all that
	// Until allows.
	KeepBytes int64
	// Match, if not nil, tells which may be removed.
	Match func(Usage) bool
	// DryRun removes nothing.
	DryRun bool
}

// Prune removes layers that only the cache keeps, the least recently used
// first and never one that another builds on, and then records that name no
// layer any more. It returns what was removed, or would be. While a build runs
// it returns ErrBusy, unless it is a dry run.
func Prune(ctx context.Context, dir string, layers LayerStore, policy Policy) ([]Usage, error) {
	if !policy.DryRun {
		unlock, err := lockForPrune(dir)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	usages, err := Collect(dir, layers)
	if err != nil {
		return nil, err
	}
	removed, err := pruneLayers(ctx, usages, layers, policy)
	if err != nil || policy.DryRun {
		return removed, err
	}
	return removed, dropRecords(dir, layers)
}

func lockForPrune(dir string) (func(), error) {
	lock, err := openLock(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrBusy
		}
		return nil, fmt.Errorf("lock cache: %w", err)
	}
	return func() { _ = lock.Close() }, nil
}

// pruneLayers goes over the candidates until none can be removed: removing a
// layer may free its parent.
func pruneLayers(ctx context.Context, usages []Usage, layers LayerStore, policy Policy) ([]Usage, error) {
	all, err := layers.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	children := map[string]int{}
	for _, l := range all {
		children[l.Parent]++
	}
	var left int64
	for _, u := range usages {
		left += u.Size
	}
	var removed []Usage
	for progress := true; progress; {
		progress = false
		for i, u := range usages {
			if u.Layer == "" || children[u.Layer] > 0 || left <= policy.KeepBytes && policy.KeepBytes > 0 {
				continue
			}
			if !policy.Until.IsZero() && u.Used.After(policy.Until) || policy.Match != nil && !policy.Match(u) {
				continue
			}
			if err := context.Cause(ctx); err != nil {
				return removed, err
			}
			if !policy.DryRun {
				if err := layers.DeleteLayer(u.Layer); err != nil {
					return removed, fmt.Errorf("remove layer of %q: %w", u.Description, err)
				}
			}
			children[u.Parent]--
			left -= u.Size
			removed = append(removed, u)
			usages[i].Layer = ""
			progress = true
		}
	}
	return removed, nil
}

// dropRecords removes the records of layers that are gone.
func dropRecords(dir string, layers LayerStore) error {
	entries, err := list(dir)
	if err != nil {
		return err
	}
	all, err := layers.Layers()
	if err != nil {
		return fmt.Errorf("list layers: %w", err)
	}
	exists := map[string]bool{"": true}
	for _, l := range all {
		exists[l.ID] = true
	}
	x := Index{dir: dir}
	for _, e := range entries {
		if exists[e.Layer] {
			continue
		}
		if err := ignoreGone(os.Remove(x.path(e.Key))); err != nil {
			return fmt.Errorf("remove cache record: %w", err)
		}
	}
	return nil
}
