// Package source provides the inputs of a graph: images, directories, git repositories
// and downloads.
//
// Images answers the front end's questions about base images and later fetches their
// layers into the store. It looks in the local store first, and asks a registry only for
// images that the store does not have. Sources passes each source vertex to the
// implementation of its type. The packages local, git and http below this one, and
// package storage/registry, provide the files.
package source
