package export

import (
	"context"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage/blobs"
)

// Origin is a layer of a base image in the form in which it was published.
type Origin struct {
	Desc ocispec.Descriptor
	// Open fetches the layer from the registry where it was published. Layers verifies
	// the content.
	Open func(context.Context) (io.ReadCloser, error)
}

// ociLayerTypes maps docker's media types of layers to those of OCI.
var ociLayerTypes = map[string]string{
	mediaTypeLayer2:                 ocispec.MediaTypeImageLayer,
	mediaTypeLayer2Gzip:             ocispec.MediaTypeImageLayerGzip,
	mediaTypeLayer2Zstd:             ocispec.MediaTypeImageLayerZstd,
	ocispec.MediaTypeImageLayer:     ocispec.MediaTypeImageLayer,
	ocispec.MediaTypeImageLayerGzip: ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayerZstd: ocispec.MediaTypeImageLayerZstd,
}

// published writes a layer of the base image to a sink as it was published. So the image
// shares it with its base image and with other images on that base. If the sink does not
// have the layer, it is fetched and passed on unchanged. published returns false if the
// layer has no such form, or if it cannot be fetched and w.complete is set.
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

// errOrigin is wrapped if a layer cannot be fetched from where it was published.
var errOrigin = errors.New("fetch layer of the base image")

// Unpublished reports whether a layer of a base image could not be fetched in the form in
// which it was published. An image with that layer cannot be written unless it is
// compressed again, see ImageOptions.Complete.
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

// fetched is the content of a layer that is fetched from where it was published.
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

// Close also returns the error of reading, because some sinks do not return it.
func (f *fetched) Close() error { return errors.Join(f.err, f.ReadCloser.Close()) }
