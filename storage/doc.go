// Package storage keeps layers and images in containers/storage, the store that
// podman, buildah and skopeo use as well.
//
// A Layer is a directory plus the recipe (tar-split) that turns it back into
// the very tar stream its DiffID names. A layer is born in a Staging directory
// that belongs to the store, so recording it is one rename(2) and nothing is
// unpacked again. An Image is a config, a manifest and a topmost layer.
//
// The store is shared by any number of processes. No lock of it is held while a
// layer is being filled or read, so no build waits for another one's steps.
//
// Overlay mounts, packing of directories and namespaces are left to the caller:
// Open expects to run as uid 0 of a user namespace, or as root. Moving images to
// and from registries and archives is the business of package storage/registry.
//
// go.podman.io/storage is containers/storage at its present module path. It and
// go.podman.io/image are imported below this folder and nowhere else.
package storage
