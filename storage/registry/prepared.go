package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/types"
)

// Prepared is an image in its final form, for example an exported build cache. It is
// pushed without any change.
type Prepared struct {
	// Manifest is the manifest of the image, or the index of several images. MediaType is
	// its media type.
	Manifest  []byte
	MediaType string
	// Manifests are the manifests that an index refers to, by digest.
	Manifests map[digest.Digest][]byte
	// MediaTypes are the media types of Manifests.
	MediaTypes map[digest.Digest]string
	// Open returns a layer or a config, and its size. It is not called for blobs that the
	// registry has already.
	Open func(digest.Digest) (io.ReadCloser, int64, error)
}

// PreparedOptions configures PushPrepared.
type PreparedOptions struct {
	// Insecure accepts any certificate and plain HTTP.
	Insecure bool
	// ByDigest pushes the image without a tag. It is ignored if Check is set.
	ByDigest bool
	// Check, if not nil, is called after all blobs and manifests have been pushed and
	// before the tag is written. If it returns an error, the tag is not written.
	Check func(ctx context.Context) error
	// Progress may be nil.
	Progress Progress
}

// PushPrepared writes src to dest, a complete name. If dest has no tag, the tag is
// latest. Blobs that the registry has, or that are known to be there from an earlier
// push, are mounted from another repository or skipped. The tag is written last.
//
// A failed push is repeated as Options.PushRetries says, but not if opts.Check is set:
// then the caller must call PushPrepared again. Errors wrap ErrUnauthorized or
// ErrNotFound if the registry says so.
func (c *Client) PushPrepared(ctx context.Context, src Prepared, dest string, opts PreparedOptions) error {
	named, err := parseName(dest)
	if err != nil {
		return err
	}
	if opts.Check != nil {
		return explain("push", named, c.tagPrepared(ctx, src, named, opts))
	}
	if opts.ByDigest {
		if named, err = imgref.WithDigest(imgref.TrimNamed(named), digest.FromBytes(src.Manifest)); err != nil {
			return fmt.Errorf("image name %q: %w", dest, err)
		}
	}
	to, err := docker.NewReference(named)
	if err != nil {
		return fmt.Errorf("image name %q: %w", dest, err)
	}
	return retry(ctx, c.opts.PushRetries, c.logger, func() error {
		err := c.pushPrepared(ctx, src, to, opts)
		if c.opts.IgnoreImmutableTags && isImmutableTag(err) {
			c.logger.Warn("the registry keeps the tag as it is", "name", named, "error", err)
			return nil
		}
		return explain("push", named, err)
	})
}

func (c *Client) pushPrepared(ctx context.Context, src Prepared, to types.ImageReference, opts PreparedOptions) (err error) {
	policy, err := newPolicyContext(acceptAnything())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, policy.Destroy()) }()
	sys := c.pushSystem(opts)
	options := &copy.Options{SourceCtx: sys, DestinationCtx: sys, PreserveDigests: true}
	if len(src.Manifests) > 0 {
		options.ImageListSelection = copy.CopyAllImages
	}
	_, err = copyImage(ctx, policy, to, &preparedRef{src}, options, opts.Progress)
	return err
}

func (c *Client) pushSystem(opts PreparedOptions) *types.SystemContext {
	sys := c.system()
	if opts.Insecure {
		sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	}
	return sys
}

var errReadOnly = errors.New("a source cannot be written to")

type sourceTransport struct{}

var _ types.ImageTransport = sourceTransport{}

// Name implements types.ImageTransport, as do the following methods.
func (sourceTransport) Name() string { return "shale" }

func (sourceTransport) ParseReference(string) (types.ImageReference, error) {
	return nil, errors.New("a source has no name")
}

func (sourceTransport) ValidatePolicyConfigurationScope(string) error { return nil }

// preparedRef is a Prepared as a types.ImageReference, so that go.podman.io/image can
// read it.
type preparedRef struct{ src Prepared }

var (
	_ types.ImageReference = (*preparedRef)(nil)
	_ types.ImageSource    = (*preparedReader)(nil)
)

// Transport implements types.ImageReference, as do the following methods.
func (r *preparedRef) Transport() types.ImageTransport { return sourceTransport{} }

func (r *preparedRef) StringWithinTransport() string {
	return digest.FromBytes(r.src.Manifest).String()
}
func (r *preparedRef) DockerReference() imgref.Named           { return nil }
func (r *preparedRef) PolicyConfigurationIdentity() string     { return "" }
func (r *preparedRef) PolicyConfigurationNamespaces() []string { return nil }

func (r *preparedRef) NewImage(ctx context.Context, sys *types.SystemContext) (types.ImageCloser, error) {
	return image.FromSource(ctx, sys, &preparedReader{r})
}

func (r *preparedRef) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return &preparedReader{r}, nil
}

func (r *preparedRef) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return nil, errReadOnly
}

func (r *preparedRef) DeleteImage(context.Context, *types.SystemContext) error { return errReadOnly }

type preparedReader struct{ ref *preparedRef }

// Reference implements types.ImageSource, as do the following methods.
func (s *preparedReader) Reference() types.ImageReference { return s.ref }
func (s *preparedReader) Close() error                    { return nil }
func (s *preparedReader) HasThreadSafeGetBlob() bool      { return true }

func (s *preparedReader) GetManifest(_ context.Context, instance *digest.Digest) ([]byte, string, error) {
	src := s.ref.src
	if instance == nil {
		return src.Manifest, src.MediaType, nil
	}
	data, ok := src.Manifests[*instance]
	if !ok {
		return nil, "", fmt.Errorf("index has no manifest %s", *instance)
	}
	return data, src.MediaTypes[*instance], nil
}

func (s *preparedReader) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, nil
}

func (s *preparedReader) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}

func (s *preparedReader) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	r, size, err := s.ref.src.Open(info.Digest)
	if err != nil {
		return nil, 0, err
	}
	return &cancelReader{ReadCloser: r, ctx: ctx}, size, nil
}
