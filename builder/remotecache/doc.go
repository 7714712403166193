// Package remotecache carries the build cache from one machine to another: in a
// registry, in a directory, or inside an image.
//
// A Cache is a set of records, which say what an operation gave, and of the
// layers that they name. Layers are told apart by their chainID, so that caches of
// several builds can be joined. It is written as an OCI image manifest: its layers
// are blobs like an image's, its config (ConfigMediaType) holds the records. In an
// image ("inline") the records stand in the image's own config.
//
// An importing build looks keys up in the config alone; blobs are fetched when a
// record is hit, and only those that the store does not have. The content of cache
// mounts, which are blobs beside the layers, is fetched when a step is about to use
// one. Everything that
// comes from outside is verified: blobs by their digest, layers by their diffID. A
// cache is trusted as far as its registry is: who can write it decides what a hit
// gives.
//
// Talking to registries and reading layout directories is left to package
// storage/registry, compressing layers to package export.
package remotecache
