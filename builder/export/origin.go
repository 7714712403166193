package export

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage/blobs"
)

// Origin is a layer of a base image in the form it was published in.
type Origin struct {
	Desc ocispec.Descriptor
	// Open fetches it from where it was published.
	Open func(context.Context) (io.ReadCloser, error)
}

// ociLayerTypes are OCI's names for docker's.
var ociLayerTypes = map[string]string{
	mediaTypeLayer2:                 ocispec.MediaTypeImageLayer,
	mediaTypeLayer2Gzip:             ocispec.MediaTypeImageLayerGzip,
	mediaTypeLayer2Zstd:             ocispec.MediaTypeImageLayerZstd,
	ocispec.MediaTypeImageLayer:     ocispec.MediaTypeImageLayer,
	ocispec.MediaTypeImageLayerGzip: ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayerZstd: ocispec.MediaTypeImageLayerZstd,
}

// published brings a layer of the base to a sink as it was published, so that the
// image shares it with its base and with whatever else is built on that. It is
// fetched when the sink does not have it, and passed on as it comes. It reports
// false for a layer that has no such form to be had.
func (ls *Layers) published(ctx context.Context, w wantedLayer, to blobs.Sink) (Layer, bool, error) {
	if ls.Origin == nil {
		return Layer{}, false, nil
	}
	origin, ok := ls.Origin(ctx, w.DiffID)
	mediaType := ociLayerTypes[origin.Desc.MediaType]
	if !ok || mediaType == "" || origin.Desc.Digest.Validate() != nil || origin.Desc.Size < 0 {
		return Layer{}, false, nil //nolint:nilerr // it has no such form
	}
	out := Layer{open: func(ctx context.Context) (io.ReadCloser, error) { return ls.fetch(ctx, origin) }}
	out.DiffID = w.DiffID
	out.Desc = ocispec.Descriptor{MediaType: mediaType, Digest: origin.Desc.Digest, Size: origin.Desc.Size}
	err := put(ctx, to, out.Desc, out.open)
	if errors.Is(err, errOrigin) && w.complete && ctx.Err() == nil {
		return Layer{}, false, nil
	}
	return out, true, err
}

// errOrigin is wrapped when a layer cannot be had from where it was published.
var errOrigin = errors.New("fetch layer of the base image")

// Unpublished tells that an image could not be written because a layer of its
// base cannot be had any more in the form it was published in.
func (ls *Layers) Unpublished() bool { return ls.lost.Load() }

func (ls *Layers) fetch(ctx context.Context, o Origin) (io.ReadCloser, error) {
	r, err := o.Open(ctx)
	if err != nil {
		return nil, ls.failed(err)
	}
	return &fetched{ReadCloser: blobs.Verified(r, o.Desc), from: ls}, nil
}

func (ls *Layers) failed(err error) error {
	ls.lost.Store(true)
	return fmt.Errorf("%w: %w", errOrigin, err)
}

// fetched is a layer on its way from where it was published.
type fetched struct {
	io.ReadCloser
	from *Layers
	err  error
}

// Read implements io.Reader.
func (f *fetched) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = f.from.failed(err)
		f.err = err
	}
	return n, err
}

// Close tells what was wrong with the layer: not every sink passes that on.
func (f *fetched) Close() error { return errors.Join(f.err, f.ReadCloser.Close()) }
