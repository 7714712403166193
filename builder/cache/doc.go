// Package cache remembers which layer an operation gave.
//
// A Key is a hash over an operation and all that can change its result; a
// Record names the layer that came out. Records are small files, one a key,
// written by rename: any number of builds read and write them at once, and a
// crash loses at most the record being written. A record whose layer is gone
// from the store is a miss, so records never have to be kept in step with the
// layers. What goes into a key is decided by package solve; removing layers is
// decided by Prune.
package cache
