// Package blobs turns layers of the store into the blobs that registries,
// layouts and archives hold.
//
// There is one way from a layer to a blob: its tar is put together from the
// store's files, compressed on several processors and written to a Sink as it
// comes out; nothing lies in a file or in memory in between. The digest of a blob
// is known at its end. A Memory keeps it, so that the next time a Sink can be
// asked for the blob before anything is read.
package blobs
