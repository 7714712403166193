// Package registry moves images between the store, registries and archives.
//
// Its nouns are those of package storage plus a Source, an image that is written
// somewhere without having to be recorded in the store, and Resolved, what a
// name stands for at a registry. All of it goes through go.podman.io/image, so
// registries.conf, policy.json, auth.json, certs.d and credential helpers mean
// what they mean to podman, buildah and skopeo. Layers are streamed out of the
// store and compressed on the way; no copies are kept.
package registry
