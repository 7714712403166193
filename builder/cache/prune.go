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

// LayerStore is the part of a store that contains the layers of the cache.
type LayerStore interface {
	Layers() ([]storage.Layer, error)
	Images() ([]storage.Image, error)
	DeleteLayer(id string) error
}

// Layers returns the IDs of all layers in the index in dir.
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

// Usage is a layer that only the cache keeps: it is not part of any image.
type Usage struct {
	Layer       string
	Parent      string
	Description string
	// Size is the size of the layer as an uncompressed tar, in bytes.
	Size          int64
	Created, Used time.Time
	// Shared reports whether the layer is the parent of other layers.
	Shared bool
}

// Collect returns the layers that only the cache keeps, the least recently used first.
// These are the layers in the index in dir, the layers that shale has recorded, and all
// layers below them, if they are not part of an image. They include the layers of a
// removed base image, and layers of steps without a record.
func Collect(dir string, layers LayerStore) ([]Usage, error) {
	entries, err := list(dir)
	if err != nil {
		return nil, err
	}
	// List the layers before the images. A layer that is recorded later is not removed.
	// An image of an existing layer may be recorded in the meantime, and is then in the
	// list.
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
	// A layer counts as used when the layers on it are used, but it must be removed after
	// them.
	slices.SortFunc(usages, func(a, b Usage) int {
		return cmp.Or(a.Used.Compare(b.Used), c.depth(b.Layer)-c.depth(a.Layer), strings.Compare(a.Layer, b.Layer))
	})
	return usages, nil
}

// unnamed is the description of a layer without a record.
const unnamed = "layer of a removed image"

type collection struct {
	byID    map[string]storage.Layer
	inImage map[string]bool
	found   map[string]*Usage
}

// add records the use of a layer and of all layers below it.
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

// depth returns the number of layers in the chain of a layer.
func (c collection) depth(id string) int {
	n := 0
	for l, ok := c.byID[id]; ok; l, ok = c.byID[l.Parent] {
		n++
	}
	return n
}

// Policy selects the layers that Prune may remove.
type Policy struct {
	// Until keeps layers that were used after it. The zero time does not keep any layer.
	Until time.Time
	// KeepBytes ends the removal when at most that many bytes are left. If it is 0, all
	// layers that the other fields allow are removed.
	KeepBytes int64
	// Match, if not nil, reports whether a layer may be removed.
	Match func(Usage) bool
	// DryRun does not remove anything.
	DryRun bool
}

// Prune removes layers that only the cache keeps, the least recently used first. It does
// not remove a layer that is the parent of another layer or that a build is using. Then
// it removes the records of layers that do not exist any more. It returns the layers that
// it has removed, or would remove in a dry run.
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

// pruneLayers repeats its loop over the candidates until no more can be removed, because
// removing a layer may make its parent removable.
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
				continue // used by a build, or it has become the parent of another layer
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

// dropRecords removes the records of layers that do not exist any more.
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
		// A build may have replaced the record in the meantime.
		if now, ok := readEntry(x.path(e.Key), e.Key); !ok || now.Layer != e.Layer {
			continue
		}
		if err := ignoreGone(os.Remove(x.path(e.Key))); err != nil {
			return fmt.Errorf("remove cache record: %w", err)
		}
	}
	return nil
}
