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

// maxConfig bounds the config of an artifact.
const maxConfig = 64 << 20

// Artifact is what a manifest describes, be it an image or something else that is
// kept like one. It is safe for concurrent use.
type Artifact struct {
	// Manifest and Config are as they are kept.
	Manifest, Config []byte

	src types.ImageSource
}

// OpenArtifact opens what ref, a complete name, stands for at its registry. Of an
// index it takes the entry for the platform. A name that is not there gives
// ErrNotFound.
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

// OpenArtifactLayout is OpenArtifact for PATH[:TAG|@DIGEST], a directory in OCI
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

// blob streams a blob. The end of the stream is io.EOF only when its digest was
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

// Layer streams a blob uncompressed. The end of the stream is io.EOF only when the
// digest of the blob was right.
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

// stacked closes what a stream reads from with it.
type stacked struct {
	io.Reader
	above, below io.Closer
}

// Close implements io.Closer.
func (s *stacked) Close() error { return errors.Join(s.above.Close(), s.below.Close()) }

// verifiedBlob compares the digest at the end.
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
