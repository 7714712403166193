package storage

import (
	"context"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
)

// Layer is one layer of the store.
type Layer struct {
	ID string
	// Parent is the ID of the layer below, "" for none.
	Parent string
	// DiffID is the digest of the layer's uncompressed tar stream.
	DiffID digest.Digest
	// Size is the length of that stream in bytes, -1 if it is not known.
	Size    int64
	Created time.Time
	// Own reports that shale recorded the layer, not another program.
	Own bool
	// ReadOnly reports that the layer is in an additional image store.
	ReadOnly bool
}

// Staging has the directories in which a layer is made. Upper becomes the layer by
// rename. Work and Merged are empty directories beside it on the same file system; the
// store removes them afterwards.
type Staging struct {
	Upper, Work, Merged string

	unpacking
}

// Diff describes the content of the Upper directory of a Staging.
type Diff struct {
	// DiffID and Size are the digest and the length of the uncompressed tar stream.
	DiffID digest.Digest
	Size   int64
	// UIDs and GIDs are the owners that occur in it.
	UIDs, GIDs []uint32
	// Blob is the digest of the stream in its published form, "" if it is not known.
	Blob digest.Digest
	// RootMode is the mode of the layer's root directory, nil if the mode of the layer
	// below applies.
	RootMode *os.FileMode
	// TarSplit holds raw tar-split JSON lines and is positioned at its beginning. The
	// store closes it.
	TarSplit *os.File
}

// FillFunc makes the content of a layer in st.Upper and returns its description. If it
// mounts something on st.Merged, it must unmount it before it returns. No lock of the
// store is held while it runs.
type FillFunc func(ctx context.Context, st Staging) (Diff, error)

// Image is one image of the store.
type Image struct {
	// ID has 64 hexadecimal digits: usually the sha256 of the config, or of the index if
	// Index is true.
	ID string
	// Names are complete: repository:tag or repository@digest.
	Names []string
	// Digest is the digest of the manifest.
	Digest digest.Digest
	// TopLayer is the ID of the topmost layer, "" for an image without layers.
	TopLayer string
	Created  time.Time
	// ReadOnly reports that the image is in an additional image store.
	ReadOnly bool
	// Index reports that this is an index of several images, which Instances returns.
	// TopLayer, Created and the config are then those of the image for this machine, or
	// of the first image that is in the store.
	Index bool
	// Member reports that the image belongs to an index. Only Images sets it.
	Member bool
}

// Dangling reports whether the image has no name and belongs to no index.
func (i Image) Dangling() bool { return len(i.Names) == 0 && !i.Member }

// ImageSpec describes an image for CreateImage.
type ImageSpec struct {
	// Config and Manifest are stored as they are.
	Config, Manifest []byte
	// TopLayer is the ID of the topmost layer, "" for an image without layers.
	TopLayer string
	// Names are complete names. They move to this image from the images that have them.
	Names []string
	// Interim gives an image without names an interim name until CreateIndex records an
	// index with the image, or until Close. Until then, other programs that remove images
	// without a name do not remove it.
	Interim bool
}
