// Package storage keeps layers and images in containers/storage, the store that podman,
// buildah and skopeo also use.
//
// A Layer is a directory and a recipe (tar-split). The recipe turns the directory back
// into exactly the tar stream that has the digest DiffID. The content of a layer is made
// in a Staging directory of the store. To record the layer, the store renames that
// directory (rename(2)), so the layer is not unpacked a second time. An Image consists of
// a config, a manifest and a topmost layer.
//
// Any number of processes may share the store. While a layer is filled or read, no lock
// of the store is held, so a build does not wait for the steps of another build.
//
// Overlay mounts, the packing of directories and namespaces are duties of the caller.
// Open must be called as uid 0 of a user namespace, or as root. Package storage/registry
// moves images to and from registries and archives.
//
// go.podman.io/storage is the present module path of containers/storage. Only packages
// below this folder import it and go.podman.io/image.
package storage
