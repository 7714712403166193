// Package export writes a finished image, or its files, to a place outside the store.
//
// An Image consists of configs, manifests and layers. A layer is read through a function
// that returns it as an uncompressed tar, so it is not unpacked or copied on the way.
// Archive writes OCI layouts and docker archives in a tar file, Layout writes an OCI
// layout in a directory, and Trees write the file system. Package storage/registry pushes
// to registries, and package storage keeps images in the store.
package export
