// Package registry copies images between the store, registries, archives and OCI layouts.
//
// It uses the types of package storage and adds two of its own. A Source is an image to
// be written, which need not be recorded in the store. Resolved is the result of looking
// up a name at a registry.
//
// All transfers use go.podman.io/image. So registries.conf, policy.json, auth.json,
// certs.d and credential helpers have the same meaning as for podman, buildah and skopeo.
// Layers are streamed out of the store and compressed on the way. No copies are kept.
package registry
