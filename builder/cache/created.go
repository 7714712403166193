package cache

import "time"

// PutCreated records at as the time when a layer was made in another store, from which it
// was imported. The layer itself only has the time of the import. The record also makes
// the layer known to Prune, although no step of this store has made it.
func (x *Index) PutCreated(layer string, at time.Time) error {
	return x.Put(createdKey(layer), Record{Layer: layer, Created: at.UTC(), Description: "layer of an imported cache"})
}

// Created returns the time that PutCreated has recorded for a layer, and false if there
// is none.
func (x *Index) Created(layer string) (time.Time, bool) {
	rec, ok := x.Get(createdKey(layer))
	return rec.Created, ok && !rec.Created.IsZero()
}

func createdKey(layer string) Key { return NewHasher("created").String(layer).Key() }
