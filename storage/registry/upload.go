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

// UploadOptions say how an Upload is made.
type UploadOptions struct {
	// Insecure accepts any certificate and plain HTTP.
	Insecure bool
	// ByDigest gives the image no tag.
	ByDigest bool
}

// Upload is a push under way: blobs are written to it as a blobs.Sink, then the
// manifests. It is safe for concurrent use.
type Upload struct {
	client *Client
	named  imgref.Named
	dest   types.ImageDestination
	known  locations
}

var _ blobs.Sink = (*Upload)(nil)

// Upload begins a push to dest, a complete name whose tag is latest when it has
// none.
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

// Close ends the connection.
func (u *Upload) Close() error {
	u.known.close()
	return u.dest.Close()
}

// uploads is how many blobs are sent at once. Each is compressed on several
// processors by itself.
const uploads = 3

// Parallel implements blobs.Sink.
func (u *Upload) Parallel() int { return uploads }

// Has implements blobs.Sink: it asks the registry, and lets it mount a blob that it
// is known to have in another repository.
func (u *Upload) Has(ctx context.Context, blob ocispec.Descriptor) (bool, error) {
	has, info, err := u.dest.TryReusingBlob(ctx, types.BlobInfo{Digest: blob.Digest, Size: blob.Size}, u.known.BlobInfoCache, false)
	if err != nil {
		return false, u.explain(fmt.Errorf("look for blob %s: %w", blob.Digest, err))
	}
	if has && info.Size >= 0 && info.Size != blob.Size {
		// Nobody can use what is there; it will be refused or replaced.
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
		u.known.compressed(put.Digest, blob.MediaType) // it was made here
	}
	if blob.Digest != "" {
		return blob.Digest, blob.Size, nil
	}
	return put.Digest, put.Size, nil
}

// watched keeps the error that reading ended with, which is not the registry's.
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

// Manifest writes the manifest or index of the image, the last part of it.
func (u *Upload) Manifest(ctx context.Context, data []byte) error {
	err := u.dest.PutManifest(ctx, data, nil)
	if u.client.opts.IgnoreImmutableTags && isImmutableTag(err) {
		u.client.logger.Warn("the registry keeps the tag as it is", "name", u.named, "error", err)
		return nil
	}
	return u.explain(err)
}

// Instance writes a manifest that the index names.
func (u *Upload) Instance(ctx context.Context, data []byte) error {
	dgst := digest.FromBytes(data)
	return u.explain(u.dest.PutManifest(ctx, data, &dgst))
}

// RetryPush repeats what pushes something as often as the client's options say.
func (c *Client) RetryPush(ctx context.Context, push func() error) error {
	return retry(ctx, c.opts.PushRetries, c.logger, push)
}

func (u *Upload) explain(err error) error { return explain("push", u.named, err) }
