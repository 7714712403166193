package storage

import "errors"

var (
	// ErrLayerUnknown is returned for a layer that the store does not have.
	ErrLayerUnknown = errors.New("layer not known")
	// ErrLayerInUse is returned if a layer cannot be deleted, because another layer, an
	// image or a container is built on it, or because another process holds it.
	ErrLayerInUse = errors.New("layer is in use")
	// ErrImageUnknown is returned for an image that the store does not have.
	ErrImageUnknown = errors.New("image not known")
	// ErrImageInUse is returned if an image cannot be removed, because a container of
	// podman or buildah is made from it, or because another process holds it.
	ErrImageInUse = errors.New("image is in use")
	// ErrImageChanged is returned if an image has changed between its lookup and its
	// removal, see Removal.
	ErrImageChanged = errors.New("image has changed")
	// ErrReadOnly is returned for changes of an image in an additional image store.
	ErrReadOnly = errors.New("image is in an additional image store, which is read-only")
	// ErrNotAnIndex is returned if the caller asks for the images of an index, and the
	// image is not an index.
	ErrNotAnIndex = errors.New("image is not an index of several")
	// ErrAmbiguousID is returned for a short ID that more than one image has.
	ErrAmbiguousID = errors.New("ID is ambiguous")
	// ErrDriver is returned by Open for a store that another driver than overlay keeps.
	ErrDriver = errors.New("storage driver is not overlay")
	// ErrCorruptLayer is returned by the reader of a layer if the layer's files no longer
	// give the stream with the digest DiffID.
	ErrCorruptLayer = errors.New("layer is corrupt")
	// ErrOtherLayers is returned for an image whose layers are not those that its config
	// names.
	ErrOtherLayers = errors.New("the layers are not those of the image's config")
	// ErrTooManyLayers is returned for an image with more than MaxLayers layers.
	ErrTooManyLayers = errors.New("too many layers")
	// ErrOwnerBeyond is returned for a layer with a file whose owner has no id in the
	// user namespace of the process.
	ErrOwnerBeyond = errors.New("which is beyond the subordinate ids of this user")
	// ErrOtherDigest is returned for a name that has the digest of another image.
	ErrOtherDigest = errors.New("the name has the digest of another image")
)
