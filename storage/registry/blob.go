package registry

import (
	"context"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"

	"github.com/shale-build/shale/internal/stall"
)

// Blob fetches a blob of the image ref, a complete name. The caller must verify the
// content and close the reader.
func (c *Client) Blob(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	from, err := docker.NewReference(named)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", ref, err)
	}
	src, err := openSource(ctx, from, c.systemFor(ocispec.Platform{}))
	if err != nil {
		return nil, explain("fetch", named, err)
	}
	r, err := openBlob(ctx, src, types.BlobInfo{Digest: desc.Digest, Size: desc.Size}, none.NoCache)
	if err != nil {
		_ = src.Close()
		return nil, explain("fetch", named, err)
	}
	return blobReader{r, src}, nil
}

// openBlob fetches a blob. Reads fail after ctx is done, or with stall.ErrStalled if the
// transfer stalls.
func openBlob(ctx context.Context, src types.ImageSource, info types.BlobInfo, known types.BlobInfoCache) (io.ReadCloser, error) {
	ctx, watch := stall.New(ctx)
	r, _, err := src.GetBlob(ctx, info, known)
	if err != nil {
		defer watch.Stop()
		return nil, watch.Cause(err)
	}
	return &watchedBlob{Reader: watch.Reader(&cancelReader{ReadCloser: r, ctx: ctx}), body: r, watch: watch}, nil
}

type watchedBlob struct {
	io.Reader
	body  io.Closer
	watch *stall.Watch
}

// Close ends the transfer.
func (b *watchedBlob) Close() error {
	defer b.watch.Stop()
	return b.body.Close()
}

// openSource calls ref.NewImageSource, which may fetch a token from the registry.
func openSource(ctx context.Context, ref types.ImageReference, sys *types.SystemContext) (types.ImageSource, error) {
	var src types.ImageSource
	err := answered(ctx, func(ctx context.Context) (err error) {
		src, err = ref.NewImageSource(ctx, sys)
		return err
	})
	return src, err
}

// readManifest returns the manifest of an image and its media type.
func readManifest(ctx context.Context, one *image.UnparsedImage) (data []byte, mediaType string, err error) {
	err = answered(ctx, func(ctx context.Context) (err error) {
		data, mediaType, err = one.Manifest(ctx)
		return err
	})
	return data, mediaType, err
}

// answered calls ask, which fetches something small. The whole answer must arrive within
// the time limit that other transfers have for their first byte.
func answered(ctx context.Context, ask func(context.Context) error) error {
	ctx, watch := stall.New(ctx)
	defer watch.Stop()
	return watch.Cause(ask(ctx))
}

type blobReader struct {
	io.ReadCloser
	src types.ImageSource
}

// Close ends the transfer.
func (b blobReader) Close() error {
	err := b.ReadCloser.Close()
	if closeErr := b.src.Close(); err == nil {
		err = closeErr
	}
	return err
}
