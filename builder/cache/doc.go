// Package cache records which layer is the result of an operation.
//
// A Key is a hash of an operation and of everything that can change its result. A Record
// names the resulting layer. Each record is a small file that is written by rename(2). So
// any number of builds may read and write records at the same time, and a crash loses at
// most the record that is being written.
//
// If the layer of a record is no longer in the store, the record is a miss. So records
// and layers need not be kept consistent. Package solve decides which data is part of a
// key. Prune decides which layers are removed.
package cache
