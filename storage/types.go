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
	// Parent is the layer below, "" for none.
	Parent string
	// DiffID is the digest of the layer as an uncompressed tar stream.
	DiffID digest.Digest
	// Size is the length of that stream in bytes, -1 when it is not known.
	Size    int64
	Created time.Time
	// Own reports that shale recorded the layer, not another program.
	Own bool
	// ReadOnly layers are in an additional image store.
	ReadOnly bool
}

// Staging is where a layer is born. Upper becomes the layer by rename; Work and
// Merged are empty siblings on the same file system that are removed afterwards.
type Staging struct {
	Upper, Work, Merged string

	unpacking
}

// Diff describes what is in the Upper directory of a Staging.
type Diff struct {
	// DiffID and Size are of the uncompressed tar stream.
	DiffID digest.Digest
	Size   int64
	// UIDs and GIDs are the owners that occur in it.
	UIDs, GIDs []uint32
	// Blob is of the stream as it was published, "" when that is not known.
	Blob digest.Digest
	// RootMode is that of the layer's root, nil for that of the layer below.
	RootMode *os.FileMode
	// TarSplit holds raw tar-split JSON lines, positioned at its beginning. The
	// store closes it.
	TarSplit *os.File
}

// FillFunc makes the content of a layer in st.Upper, unmounts whatever it
// mounted on st.Merged and describes the result. It runs without any lock of the
// store.
type FillFunc func(ctx context.Context, st Staging) (Diff, error)

// Image is one image of the store.
type Image struct {
	// ID is 64 hexadecimal digits: the sha256 of the config.
	ID string
	// Names are complete: repository:tag or repository@digest.
	Names []string
	// Digest is of the manifest.
	Digest digest.Digest
	// TopLayer is the ID of the topmost layer, "" for an image without layers.
	TopLayer string
	Created  time.Time
	// ReadOnly images live in an additional image store.
	ReadOnly bool
	// Index tells that this is an index of several images (Instances lists
	// them). TopLayer, Created and the config are those of the one for this
	// machine, or of the first.
	Index bool
	// Member tells that the image belongs to an index. Images sets it.
	Member bool
}

// Dangling tells that nothing leads to the image: it has no name, and no index
// has it.
func (i Image) Dangling() bool { return len(i.Names) == 0 && !i.Member }

// ImageSpec is an image to be recorded.
type ImageSpec struct {
	// Config and Manifest are stored as they are.
	Config, Manifest []byte
	// TopLayer is "" for an image without layers.
	TopLayer string
	// Names are complete names; they move here from whatever image has them.
	Names []string
	// Interim lets an image without names have one until CreateIndex records an
	// index that has the image, or until Close. Other programs that remove images
	// without a name do not take it before that.
	Interim bool
}
