package registry

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/pkg/compression"
	"go.podman.io/image/v5/types"
)

// maxConfig is the maximum size of a config in bytes.
const maxConfig = 64 << 20

// Artifact is an image, or another object that is stored as a manifest with blobs, for
// example an exported build cache. The caller must close it. It is safe for concurrent
// use.
type Artifact struct {
	// Manifest and Config are the bytes at the source.
	Manifest, Config []byte

	src types.ImageSource
}

// OpenArtifact opens the artifact that ref, a complete name, refers to at its registry.
// If ref refers to an index, it opens the entry for the platform, or returns ErrPlatform
// if there is none. The error wraps ErrNotFound if there is no such name.
func (c *Client) OpenArtifact(ctx context.Context, ref string, platform ocispec.Platform) (*Artifact, error) {
	named, err := parseName(ref)
	if err != nil {
		return nil, err
	}
	from, err := docker.NewReference(named)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", ref, err)
	}
	a, err := c.openArtifact(ctx, from, "", platform)
	if err != nil {
		return nil, explain("read", named, err)
	}
	return a, nil
}

// OpenArtifactLayout is like OpenArtifact for PATH[:TAG|@DIGEST], a directory in OCI
// layout.
func (c *Client) OpenArtifactLayout(ctx context.Context, where string, platform ocispec.Platform) (*Artifact, error) {
	ref, _, dgst, err := openLayout(where)
	if err != nil {
		return nil, err
	}
	a, err := c.openArtifact(ctx, ref, dgst, platform)
	if err != nil {
		return nil, fmt.Errorf("read OCI layout %s: %w", where, err)
	}
	return a, nil
}

func (c *Client) openArtifact(ctx context.Context, ref types.ImageReference, want digest.Digest, platform ocispec.Platform) (_ *Artifact, err error) {
	sys := c.systemFor(platform)
	src, err := openSource(ctx, ref, sys)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, src.Close())
		}
	}()
	one := image.UnparsedInstance(src, nil)
	data, mediaType, err := topManifest(ctx, one, want)
	if err != nil {
		return nil, err
	}
	if manifest.MIMETypeIsMultiImage(mediaType) {
		chosen, err := choose(data, mediaType, sys)
		if err != nil {
			return nil, err
		}
		if data, mediaType, err = readManifest(ctx, image.UnparsedInstance(src, &chosen)); err != nil {
			return nil, err
		}
	}
	m, err := parseManifest(data, mediaType)
	if err != nil {
		return nil, err
	}
	a := &Artifact{Manifest: data, src: src}
	a.Config, err = a.config(ctx, m.ConfigInfo())
	return a, err
}

func (a *Artifact) config(ctx context.Context, info types.BlobInfo) (_ []byte, err error) {
	r, err := a.blob(ctx, info)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("read config: it has more than %d bytes", maxConfig)
	}
	return data, nil
}

// blob returns the content of a blob. The reader returns io.EOF only if the digest is
// right.
func (a *Artifact) blob(ctx context.Context, info types.BlobInfo) (io.ReadCloser, error) {
	if err := info.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("blob %q: %w", info.Digest, err)
	}
	r, err := openBlob(ctx, a.src, info, none.NoCache)
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", info.Digest, err)
	}
	return &verifiedBlob{ReadCloser: r, verifier: info.Digest.Verifier(), digest: info.Digest}, nil
}

// Layer returns the uncompressed content of a blob. The reader returns io.EOF only if the
// digest of the blob is right. The caller must close it.
func (a *Artifact) Layer(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	r, err := a.blob(ctx, types.BlobInfo{Digest: desc.Digest, Size: desc.Size, URLs: nil, MediaType: desc.MediaType})
	if err != nil {
		return nil, err
	}
	in := &counted{r: r, tell: func(int64) {}}
	plain, _, err := compression.AutoDecompress(in)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read blob %s: %w", desc.Digest, err), r.Close())
	}
	return &stacked{Reader: &whole{plain: plain, blob: in}, above: plain, below: r}, nil
}

// Close ends the connection.
func (a *Artifact) Close() error { return a.src.Close() }

// stacked is a reader that reads from another one and closes both.
type stacked struct {
	io.Reader
	above, below io.Closer
}

// Close implements io.Closer.
func (s *stacked) Close() error { return errors.Join(s.above.Close(), s.below.Close()) }

// verifiedBlob verifies the digest of a blob at its end.
type verifiedBlob struct {
	io.ReadCloser
	verifier digest.Verifier
	digest   digest.Digest
}

// Read implements io.Reader.
func (b *verifiedBlob) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	_, _ = b.verifier.Write(p[:n])
	if errors.Is(err, io.EOF) && !b.verifier.Verified() {
		return n, fmt.Errorf("blob %s: its content has another digest", b.digest)
	}
	return n, err
}
