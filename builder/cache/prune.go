package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

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

// Collect lists what only the cache keeps, least recently used first: the layers that
// the index in dir names, those that shale recorded, and the layers below them, as far
// as no image has them. The image of a base, or the record of a step, may be gone.
func Collect(dir string, layers LayerStore) ([]Usage, error) {
	entries, err := list(dir)
	if err != nil {
		return nil, err
	}
	// Layers first: one that is recorded later is none to remove, and the image of one
	// that is there may be recorded meanwhile.
	all, err := layers.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	images, err := layers.Images()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	c := collection{byID: make(map[string]storage.Layer, len(all)), inImage: map[string]bool{}, found: map[string]*Usage{}}
	hasChild := map[string]bool{}
	for _, l := range all {
		c.byID[l.ID] = l
		hasChild[l.Parent] = true
	}
	for _, img := range images {
		for id := img.TopLayer; id != "" && !c.inImage[id]; id = c.byID[id].Parent {
			c.inImage[id] = true
		}
	}
	for _, l := range all {
		if l.Own {
			c.add(l.ID, l.Created, unnamed)
		}
	}
	for _, e := range entries {
		c.add(e.Layer, e.Used, e.Description)
	}
	usages := make([]Usage, 0, len(c.found))
	for _, u := range c.found {
		u.Shared = hasChild[u.Layer]
		usages = append(usages, *u)
	}
	// A layer was used when the layers built on it were, but is removed after them.
	slices.SortFunc(usages, func(a, b Usage) int {
		return cmp.Or(a.Used.Compare(b.Used), c.depth(b.Layer)-c.depth(a.Layer), strings.Compare(a.Layer, b.Layer))
	})
	return usages, nil
}

// unnamed describes a layer of which no record is left.
const unnamed = "layer of a removed image"

type collection struct {
	byID    map[string]storage.Layer
	inImage map[string]bool
	found   map[string]*Usage
}

// add notes that a layer was used, and with it those that it is built on.
func (c collection) add(id string, used time.Time, description string) {
	for first := true; ; first = false {
		l, ok := c.byID[id]
		if !ok || c.inImage[id] || l.ReadOnly {
			return
		}
		u := c.found[id]
		if u == nil {
			u = &Usage{Layer: l.ID, Parent: l.Parent, Size: l.Size, Created: l.Created, Description: unnamed}
			c.found[id] = u
		}
		if first && (u.Description == unnamed || used.After(u.Used)) {
			u.Description = description
		}
		if used.After(u.Used) {
			u.Used = used
		}
		id, description = l.Parent, unnamed
	}
}

// depth returns the number of layers that a layer is made of.
func (c collection) depth(id string) int {
	n := 0
	for l, ok := c.byID[id]; ok; l, ok = c.byID[l.Parent] {
		n++
	}
	return n
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
// first and never one that another builds on or that a build uses, and then records
// whose layer is gone. It returns the layers that it removed or, dry, would remove.
func Prune(ctx context.Context, dir string, layers LayerStore, policy Policy) ([]Usage, error) {
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
			usages[i].Layer = ""
			if !policy.DryRun {
				err = layers.DeleteLayer(u.Layer)
			}
			switch {
			case errors.Is(err, storage.ErrLayerInUse):
				continue // by a build, or something was made of it meanwhile
			case err == nil:
				removed = append(removed, u)
			case !errors.Is(err, storage.ErrLayerUnknown):
				return removed, fmt.Errorf("remove layer of %q: %w", u.Description, err)
			}
			children[u.Parent]--
			left -= u.Size
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
		// A build may have put another record in its place.
		if now, ok := readEntry(x.path(e.Key), e.Key); !ok || now.Layer != e.Layer {
			continue
		}
		if err := ignoreGone(os.Remove(x.path(e.Key))); err != nil {
			return fmt.Errorf("remove cache record: %w", err)
		}
	}
	return nil
}
