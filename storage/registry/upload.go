package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/shale-build/shale/storage/blobs"
)

// UploadOptions configures an Upload.
type UploadOptions struct {
	// Insecure accepts any certificate and plain HTTP.
	Insecure bool
	// ByDigest pushes the image without a tag.
	ByDigest bool
}

// Upload is a push in progress. The caller writes the blobs to it as to a blobs.Sink and
// then the manifests, and must call Close in the end. Upload is safe for concurrent use.
type Upload struct {
	client *Client
	named  imgref.Named
	dest   types.ImageDestination
	known  locations
}

var _ blobs.Sink = (*Upload)(nil)

// Upload starts a push to dest, a complete name. If dest has no tag, the tag is latest.
// Errors of Upload and of the methods of its result wrap ErrUnauthorized or ErrNotFound
// if the registry says so.
func (c *Client) Upload(ctx context.Context, dest string, opts UploadOptions) (*Upload, error) {
	named, err := parseName(dest)
	if err != nil {
		return nil, err
	}
	refer := docker.NewReference
	if opts.ByDigest {
		named, refer = imgref.TrimNamed(named), docker.NewReferenceUnknownDigest
	}
	to, err := refer(named)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", dest, err)
	}
	sys := c.system()
	if opts.Insecure {
		sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	}
	d, err := to.NewImageDestination(ctx, sys)
	if err != nil {
		return nil, explain("push", named, err)
	}
	return &Upload{client: c, named: named, dest: d, known: openLocations(sys)}, nil
}

// Close ends the push and releases the connection.
func (u *Upload) Close() error {
	u.known.close()
	return u.dest.Close()
}

// uploads is the number of blobs that are sent at the same time. The compression of each
// blob uses several processors already.
const uploads = 3

// Parallel implements blobs.Sink.
func (u *Upload) Parallel() int { return uploads }

// Has implements blobs.Sink. It asks the registry for the blob. If the blob is known to
// be in another repository of the registry, it asks the registry to mount it from there.
func (u *Upload) Has(ctx context.Context, blob ocispec.Descriptor) (bool, error) {
	has, info, err := u.dest.TryReusingBlob(ctx, types.BlobInfo{Digest: blob.Digest, Size: blob.Size}, u.known.BlobInfoCache, false)
	if err != nil {
		return false, u.explain(fmt.Errorf("look for blob %s: %w", blob.Digest, err))
	}
	if has && info.Size >= 0 && info.Size != blob.Size {
		// A blob of another size is not usable. The registry replaces it or refuses Put.
		return false, nil
	}
	return has, nil
}

// Put implements blobs.Sink.
func (u *Upload) Put(ctx context.Context, blob ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error) {
	info := types.BlobInfo{Digest: blob.Digest, Size: blob.Size}
	if blob.Digest == "" {
		info.Size = -1
	}
	in := &watched{r: r}
	put, err := u.dest.PutBlob(ctx, in, info, u.known.BlobInfoCache, false)
	if err != nil && in.err != nil {
		return "", 0, in.err
	}
	if err != nil {
		return "", 0, u.explain(fmt.Errorf("upload blob: %w", err))
	}
	if blob.MediaType != "" && (blob.Digest == "" || blob.MediaType == ocispec.MediaTypeImageLayer) {
		u.known.compressed(put.Digest, blob.MediaType) // it was compressed here, so its compression is known
	}
	if blob.Digest != "" {
		return blob.Digest, blob.Size, nil
	}
	return put.Digest, put.Size, nil
}

// watched keeps the error of the reader, to tell it from an error of the registry.
type watched struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// Manifest writes the manifest or index of the image. All blobs and instances must have
// been written before. For a registry that refuses to move the tag, see
// Options.IgnoreImmutableTags.
func (u *Upload) Manifest(ctx context.Context, data []byte) error {
	err := u.dest.PutManifest(ctx, data, nil)
	if u.client.opts.IgnoreImmutableTags && isImmutableTag(err) {
		u.client.logger.Warn("the registry keeps the tag as it is", "name", u.named, "error", err)
		return nil
	}
	return u.explain(err)
}

// Instance writes the manifest of an image that the index refers to.
func (u *Upload) Instance(ctx context.Context, data []byte) error {
	dgst := digest.FromBytes(data)
	return u.explain(u.dest.PutManifest(ctx, data, &dgst))
}

// RetryPush calls push until it succeeds, but repeats it at most Options.PushRetries
// times. Errors that wrap ErrNotFound or ErrPlatform are not retried.
func (c *Client) RetryPush(ctx context.Context, push func() error) error {
	return retry(ctx, c.opts.PushRetries, c.logger, push)
}

func (u *Upload) explain(err error) error { return explain("push", u.named, err) }
