// Package export writes a finished image or its files somewhere outside the
// store.
//
// An Image is a config and a list of layers; layers are read through a function
// that streams one as an uncompressed tar, so nothing is unpacked or copied on
// the way. Archive writes OCI layouts and docker archives, Files and Tar write
// the file system. Pushing to a registry is package storage/registry's, keeping
// the image in the store is package storage's.
package export
