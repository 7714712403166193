package remotecache

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/storage"
)

// Collector makes a Cache of the records that the index of a build has of some layers.
type Collector struct {
	// Chain returns a layer and all layers below it, from the base to the top. Created of
	// a layer is when it was made, also if that was on another machine.
	Chain func(layer string) ([]storage.Layer, error)
	// Entries returns the records of the index.
	Entries func() ([]cache.Entry, error)
	// Blob compresses a layer.
	Blob func(ctx context.Context, l storage.Layer) (ocispec.Descriptor, error)
	// Before is the old content of the cache to be written, or nil if there is none.
	// Layers that it contains are not compressed again.
	Before *Cache
	// Now is the time at which the records count as used.
	Now time.Time
}

// Collect returns the records of the layers in tops and of all layers below them, with
// these layers.
func (col Collector) Collect(ctx context.Context, tops []string) (*Cache, error) {
	c := &Cache{}
	chains, err := col.layers(ctx, c, tops)
	if err != nil {
		return nil, err
	}
	entries, err := col.Entries()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		chain, ok := chains[e.Layer]
		if !ok || chain != e.Chain {
			continue
		}
		rec := Record{Chain: chain, Created: e.Created, Used: col.Now, Description: e.Description}
		if err := c.AddRecord(e.Key, rec); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// found is a layer of the store and its place in its chain.
type found struct {
	layer         storage.Layer
	parent, chain digest.Digest
	blob          ocispec.Descriptor
}

// layers adds the layers to c. It returns their chainIDs by their IDs in the store.
func (col Collector) layers(ctx context.Context, c *Cache, tops []string) (map[string]digest.Digest, error) {
	chains := map[string]digest.Digest{}
	var list []*found
	for _, top := range tops {
		below, err := col.Chain(top)
		if err != nil {
			return nil, fmt.Errorf("list layers for the cache: %w", err)
		}
		var parent digest.Digest
		for _, l := range below {
			f := &found{layer: l, parent: parent, chain: chainOf(parent, l.DiffID)}
			parent = f.chain
			if _, ok := chains[l.ID]; !ok {
				chains[l.ID] = f.chain
				list = append(list, f)
			}
		}
	}
	if err := col.blobs(ctx, list); err != nil {
		return nil, err
	}
	for _, f := range list {
		if _, err := c.AddLayer(Layer{DiffID: f.layer.DiffID, Blob: f.blob, Parent: f.parent, Created: f.layer.Created.UTC()}); err != nil {
			return nil, err
		}
	}
	return chains, nil
}

// blobs compresses several layers at the same time.
func (col Collector) blobs(ctx context.Context, list []*found) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range list {
		if col.Before != nil {
			if l, ok := col.Before.layers[f.chain]; ok {
				f.blob = l.Blob
				continue
			}
		}
		group.Go(func() (err error) {
			f.blob, err = col.Blob(ctx, f.layer)
			return err
		})
	}
	return group.Wait()
}
