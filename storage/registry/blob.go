package registry

import (
	"context"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"
)

// Blob fetches a layer of the image ref, a complete name. The caller verifies
// what it reads.
func (c *Client) Blob(ctx context.Context, ref string, desc ocispec.Descriptor) (io.ReadCloser, error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	from, err := docker.NewReference(named)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", ref, err)
	}
	src, err := from.NewImageSource(ctx, c.system())
	if err != nil {
		return nil, explain("fetch", named, err)
	}
	r, _, err := src.GetBlob(ctx, types.BlobInfo{Digest: desc.Digest, Size: desc.Size}, none.NoCache)
	if err != nil {
		_ = src.Close()
		return nil, explain("fetch", named, err)
	}
	return blobReader{r, src}, nil
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
