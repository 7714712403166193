// Package blobs turns layers of the store into the blobs of registries, layouts and
// archives.
//
// There is one way from a layer to a blob. The layer's tar is put together from the
// store's files, compressed on several processors, and written to a Sink at once. Neither
// a file nor memory holds the whole blob in between. The digest of a blob is known only
// at its end. A Memory keeps this digest, so the next time a Sink can be asked for the
// blob before any file is read.
package blobs
