package remotecache

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
)

// Layer is a layer of a Cache and the blob that contains it.
type Layer struct {
	DiffID digest.Digest
	Blob   ocispec.Descriptor
	// Parent is the chainID of the layer below, or "" if there is none.
	Parent digest.Digest
	// Created is when the layer was made. It is part of the history of an image, and an
	// image built from imported layers must equal the original one.
	Created time.Time
}

// Record is the result of an operation.
type Record struct {
	// Chain is the chainID of the topmost layer of the result. It is "" if the result is
	// empty.
	Chain digest.Digest
	// Created is when the operation ran. Used is when a build last used the record.
	Created, Used time.Time
	Description   string
}

// Cache is a set of records, of layers, and of cache mounts with their content. The zero
// value is empty.
type Cache struct {
	layers  map[digest.Digest]Layer
	records map[cache.Key]Record
	mounts  map[cachemount.Key]Mount
}

// chainOf returns the chainID of a layer on a parent.
func chainOf(parent, diffID digest.Digest) digest.Digest {
	if parent == "" {
		return diffID
	}
	return identity.ChainID([]digest.Digest{parent, diffID})
}

// AddLayer adds a layer and returns its chainID. It returns an error if the layer's
// parent has not been added before.
func (c *Cache) AddLayer(l Layer) (digest.Digest, error) {
	if l.Parent != "" {
		if _, ok := c.layers[l.Parent]; !ok {
			return "", fmt.Errorf("layer %s: its parent %s is not in the cache", l.DiffID, l.Parent)
		}
	}
	if c.layers == nil {
		c.layers = map[digest.Digest]Layer{}
	}
	chain := chainOf(l.Parent, l.DiffID)
	c.layers[chain] = l
	return chain, nil
}

// AddRecord adds the result of the operation key. It returns an error if the layers of r
// have not been added before.
func (c *Cache) AddRecord(key cache.Key, r Record) error {
	if r.Chain != "" {
		if _, ok := c.layers[r.Chain]; !ok {
			return fmt.Errorf("record %s: its layer is not in the cache", key)
		}
	}
	if c.records == nil {
		c.records = map[cache.Key]Record{}
	}
	c.records[key] = r
	return nil
}

// Record returns the record of a key, and false if there is none.
func (c *Cache) Record(key cache.Key) (Record, bool) {
	r, ok := c.records[key]
	return r, ok
}

// Len returns the number of records.
func (c *Cache) Len() int { return len(c.records) }

// Layers returns the layers of a chain, from the base to the top.
func (c *Cache) Layers(chain digest.Digest) []Layer {
	var list []Layer
	for chain != "" {
		l := c.layers[chain]
		list = append(list, l)
		chain = l.Parent
	}
	slices.Reverse(list)
	return list
}

// Join adds the records, layers and cache mounts of other that c does not have.
func (c *Cache) Join(other *Cache) {
	if c.layers == nil {
		c.layers = map[digest.Digest]Layer{}
	}
	if c.records == nil {
		c.records = map[cache.Key]Record{}
	}
	for chain, l := range other.layers {
		if _, ok := c.layers[chain]; !ok {
			c.layers[chain] = l
		}
	}
	for key, r := range other.records {
		if _, ok := c.records[key]; !ok {
			c.records[key] = r
		}
	}
	for key, m := range other.mounts {
		if _, ok := c.mounts[key]; !ok {
			c.AddMount(key, m)
		}
	}
}

// Bound removes records and cache mounts that were last used before the time after. Of
// the others it keeps the most recently used ones, as long as the blobs have at most size
// bytes. Records take precedence over cache mounts. Layers that no record needs are
// removed, too.
func (c *Cache) Bound(after time.Time, size int64) {
	type keyed struct {
		key cache.Key
		Record
	}
	var list []keyed
	for key, r := range c.records {
		if !r.Used.Before(after) {
			list = append(list, keyed{key, r})
		}
	}
	slices.SortFunc(list, func(a, b keyed) int {
		return cmp.Or(b.Used.Compare(a.Used), cmp.Compare(a.key, b.key))
	})
	kept := Cache{layers: map[digest.Digest]Layer{}, records: map[cache.Key]Record{}}
	var total int64
	blobs := map[digest.Digest]bool{}
	for _, k := range list {
		need := int64(0)
		var fresh []digest.Digest
		for chain := k.Chain; chain != ""; chain = c.layers[chain].Parent {
			if _, ok := kept.layers[chain]; ok {
				break
			}
			fresh = append(fresh, chain)
			if b := c.layers[chain].Blob; !blobs[b.Digest] {
				need += b.Size
			}
		}
		if total+need > size {
			continue
		}
		total += need
		for _, chain := range fresh {
			kept.layers[chain] = c.layers[chain]
			blobs[c.layers[chain].Blob.Digest] = true
		}
		kept.records[k.key] = k.Record
	}
	for _, key := range c.mountsByUse() {
		m := c.mounts[key]
		if m.Used.Before(after) || total+m.Blob.Size > size {
			continue
		}
		total += m.Blob.Size
		kept.AddMount(key, m)
	}
	*c = kept
}

// mountsByUse returns the keys of the cache mounts, the most recently used first.
func (c *Cache) mountsByUse() []cachemount.Key {
	return slices.SortedFunc(maps.Keys(c.mounts), func(a, b cachemount.Key) int {
		return cmp.Or(c.mounts[b].Used.Compare(c.mounts[a].Used), cmp.Compare(a, b))
	})
}

// order returns the chainIDs of all layers. Parents come first, and the order is the same
// for equal caches.
func (c *Cache) order() []digest.Digest {
	depth := map[digest.Digest]int{}
	var measure func(chain digest.Digest) int
	measure = func(chain digest.Digest) int {
		if chain == "" {
			return 0
		}
		if d, ok := depth[chain]; ok {
			return d
		}
		depth[chain] = measure(c.layers[chain].Parent) + 1
		return depth[chain]
	}
	list := slices.Collect(maps.Keys(c.layers))
	slices.SortFunc(list, func(a, b digest.Digest) int {
		return cmp.Or(measure(a)-measure(b), cmp.Compare(a, b))
	})
	return list
}
