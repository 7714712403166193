// Package remotecache transfers the build cache between machines: in a registry, in a
// directory, or inside an image.
//
// A Cache is a set of records and of the layers that they name. A record contains the
// result of an operation. Layers are identified by their chainIDs, so that the caches of
// several builds can be joined. A Cache is written as an OCI image manifest. Its layers
// are blobs like those of an image, and its config (ConfigMediaType) contains the
// records. In an image ("inline") the records are in the image's own config.
//
// A build that imports a cache looks up keys only in the config. It fetches blobs if it
// finds a record, and only those that the store does not have. The content of a cache
// mount is also a blob in the manifest. It is fetched before a step first uses the cache
// mount.
//
// All imported data is verified: blobs against their digests, and layers against their
// diffIDs. The records cannot be verified. Users with write access to the registry choose
// the result of a cache hit, so the cache must be trusted as much as its registry.
//
// Package storage/registry accesses registries and layout directories. Package export
// compresses layers.
package remotecache
