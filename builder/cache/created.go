package cache

import "time"

// PutCreated remembers when a layer that was brought from another store was made
// there: the store itself says when it came. That also makes the layer known to
// Prune, though no step of this store gave it.
func (x *Index) PutCreated(layer string, at time.Time) error {
	return x.Put(createdKey(layer), Record{Layer: layer, Created: at.UTC(), Description: "layer of an imported cache"})
}

// Created is what PutCreated was told of a layer.
func (x *Index) Created(layer string) (time.Time, bool) {
	rec, ok := x.Get(createdKey(layer))
	return rec.Created, ok && !rec.Created.IsZero()
}

func createdKey(layer string) Key { return NewHasher("created").String(layer).Key() }
