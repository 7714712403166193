package registry

import (
	"context"
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/types"
)

// Push writes src to dest, a complete name whose tag is latest when it has none,
// and returns the descriptor of the manifest at the registry. Layers are streamed
// out of the store and compressed on the way; no copies are made. Blobs that the
// registry has, or that an earlier push is known to have brought there, are
// mounted or skipped. Docker's schema 2 knows no zstd, so the manifest becomes an
// OCI one then.
func (c *Client) Push(ctx context.Context, src Source, dest string, opts PushOptions) (ocispec.Descriptor, error) {
	named, err := parseName(dest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	to, err := docker.NewReference(named)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("image name %q: %w", dest, err)
	}
	tags, err := withTags(named, opts.Tags)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	from, err := c.reference(src)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push %s: %w", named, err)
	}
	sys := c.system()
	data, err := c.write(ctx, from, to, sys, opts)
	if err != nil {
		return ocispec.Descriptor{}, explain("push", named, err)
	}
	for _, tag := range tags {
		if err := putManifest(ctx, tag, sys, from, data); err != nil {
			return ocispec.Descriptor{}, explain("push", tag.DockerReference(), err)
		}
	}
	return describe(data)
}

func describe(data []byte) (ocispec.Descriptor, error) {
	dgst, err := digestOf(data)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: manifest.GuessMIMEType(data), Digest: dgst, Size: int64(len(data))}, nil
}

func withTags(named imgref.Named, tags []string) ([]types.ImageReference, error) {
	refs := make([]types.ImageReference, 0, len(tags))
	for _, tag := range tags {
		tagged, err := imgref.WithTag(imgref.TrimNamed(named), tag)
		if err != nil {
			return nil, fmt.Errorf("tag %q: %w", tag, err)
		}
		ref, err := docker.NewReference(tagged)
		if err != nil {
			return nil, fmt.Errorf("tag %q: %w", tag, err)
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// write copies from to any destination with the compression of opts.
func (c *Client) write(ctx context.Context, from, to types.ImageReference, sys *types.SystemContext, opts PushOptions) (_ []byte, err error) {
	// What is written comes from this machine; signatures are of what comes in.
	policy, err := newPolicyContext(acceptAnything())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, policy.Destroy()) }()
	options := &copy.Options{SourceCtx: sys, DestinationCtx: sys}
	switch opts.Compression {
	case "", Gzip:
		sys.CompressionFormat = &compression.Gzip
		options.ForceCompressionFormat = true
	case Zstd:
		sys.CompressionFormat = &compression.Zstd
		options.ForceCompressionFormat = true
	case Uncompressed:
		options.PreserveDigests = true
	default:
		return nil, fmt.Errorf("compression %q is not known: use gzip, zstd or uncompressed", opts.Compression)
	}
	sys.CompressionLevel = opts.Level
	if from, ok := from.(*sourceRef); ok && from.instances != nil {
		options.ImageListSelection = copy.CopyAllImages
	}
	return copyImage(ctx, policy, to, from, options, opts.Progress)
}

// putManifest gives a manifest whose blobs are there already one more tag.
func putManifest(ctx context.Context, ref types.ImageReference, sys *types.SystemContext, from *sourceRef, data []byte) (err error) {
	dest, err := ref.NewImageDestination(ctx, sys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dest.Close()) }()
	if err := dest.PutManifest(ctx, data, nil); err != nil {
		return err
	}
	return dest.Commit(ctx, image.UnparsedInstance(&sourceReader{ref: from}, nil))
}
