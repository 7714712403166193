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
	"go.podman.io/image/v5/types"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// A registry, an archive or a layout is not trusted. Its data is used only after this
// process has hashed it: the manifest is compared with the requested digest, the config
// with the manifest, and each unpacked layer with the config.

// errSchema1 is returned for an image without a config, which therefore has no diffIDs.
var errSchema1 = errors.New("images of docker's schema 1 are not supported: push it again with a newer tool, or convert it (skopeo copy --format oci)")

// topManifest reads the manifest or index of a reference. If want is not empty, it must
// have that digest.
func topManifest(ctx context.Context, top *image.UnparsedImage, want digest.Digest) ([]byte, string, error) {
	data, mediaType, err := readManifest(ctx, top)
	if err != nil {
		return nil, "", err
	}
	if want != "" {
		if err := matchesAny(want, data); err != nil {
			return nil, "", err
		}
	}
	return data, mediaType, nil
}

// matchesAny returns an error that wraps blobs.ErrMismatch if none of the manifests has
// the digest want.
func matchesAny(want digest.Digest, manifests ...[]byte) error {
	if err := want.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", want, err)
	}
	for _, data := range manifests {
		if ok, err := manifest.MatchesDigest(data, want); err == nil && ok {
			return nil
		}
	}
	return fmt.Errorf("manifest %s is %w: its content has another digest", want, blobs.ErrMismatch)
}

// parseManifest parses the manifest of an image. All digests in the result are
// well-formed.
func parseManifest(data []byte, mediaType string) (manifest.Manifest, error) {
	switch manifest.NormalizedMIMEType(mediaType) {
	case manifest.DockerV2Schema1MediaType, manifest.DockerV2Schema1SignedMediaType:
		return nil, errSchema1
	}
	m, err := manifest.FromBlob(data, mediaType)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err := storage.CheckDigest(m.ConfigInfo().Digest); err != nil {
		return nil, fmt.Errorf("read manifest: config: %w", err)
	}
	for i, l := range m.LayerInfos() {
		if err := l.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("read manifest: layer %d: digest %q: %w", i, l.Digest, err)
		}
	}
	return m, nil
}

// offered returns the layers of an image, from the base to the top, each with the diffID
// that its config claims. It returns storage.ErrOtherLayers if the manifest has more or
// fewer layers than the config.
func offered(m manifest.Manifest, config []byte) ([]*wanted, error) {
	diffIDs, err := storage.DiffIDs(config)
	if err != nil {
		return nil, err
	}
	infos := m.LayerInfos()
	if len(infos) != len(diffIDs) {
		return nil, fmt.Errorf("%w: the manifest has %d layers and the config names %d", storage.ErrOtherLayers, len(infos), len(diffIDs))
	}
	// Without this check the store would refuse the last layers after it has unpacked all
	// others.
	if len(infos) > storage.MaxLayers {
		return nil, fmt.Errorf("%w: the image has %d, and at most %d can be mounted", storage.ErrTooManyLayers, len(infos), storage.MaxLayers)
	}
	list := make([]*wanted, len(infos))
	for i, info := range infos {
		mediaType, ok := layerTypes[info.MediaType]
		if !ok {
			return nil, fmt.Errorf("read manifest: layer %s: layers of the type %q are not supported", info.Digest, info.MediaType)
		}
		if info.Size < 0 {
			return nil, fmt.Errorf("read manifest: layer %s has %d bytes", info.Digest, info.Size)
		}
		list[i] = &wanted{diffID: diffIDs[i], blob: ocispec.Descriptor{MediaType: mediaType, Digest: info.Digest, Size: info.Size}}
	}
	return list, nil
}

// unpacked reports whether a blob is known to contain the layer diffID, because that was
// computed on this machine before.
func (c *Client) unpacked(blob, diffID digest.Digest) bool {
	if blob == diffID {
		return true
	}
	if known, ok := c.memory().Blob(blob); ok && known.DiffID == diffID {
		return true
	}
	same, err := c.store.Library().LayersByCompressedDigest(blob)
	return err == nil && len(same) > 0 && same[0].UncompressedDigest == diffID
}

// verify checks that the blobs contain the layers that the config claims. It fetches the
// blobs that were never unpacked on this machine.
func (f *fetcher) verify(ctx context.Context, list []*wanted) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(1)
	if f.src.HasThreadSafeGetBlob() {
		group.SetLimit(fetches)
	}
	for _, w := range list {
		group.Go(func() error {
			if f.is(w) {
				f.tell(w, w.blob.Size, true)
				return nil
			}
			got, err := f.hash(groupCtx, w)
			if err == nil {
				err = f.matches(w, got)
			}
			return err
		})
	}
	err := group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// matches returns an error if the layer in a blob, with the diffID got, is not the layer
// that the config claims. If it is, matches remembers that.
func (f *fetcher) matches(w *wanted, got digest.Digest) error {
	if got != w.diffID {
		return fmt.Errorf("layer %s does not match the config's diffID %s: it is %s", w.blob.Digest, w.diffID, got)
	}
	f.known.RecordDigestUncompressedPair(w.blob.Digest, w.diffID)
	f.tell(w, w.blob.Size, true)
	return nil
}

// hash fetches a blob and returns the digest of its uncompressed form.
func (f *fetcher) hash(ctx context.Context, w *wanted) (got digest.Digest, err error) {
	err = f.stream(ctx, w, func(plain io.Reader, kind string) error {
		sum := digest.Canonical.Digester()
		if _, err := io.Copy(sum.Hash(), plain); err != nil {
			return err
		}
		got = sum.Digest()
		f.remember(w, got, kind)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("layer %s: %w", w.blob.Digest, err)
	}
	return got, nil
}

// stream fetches a blob and calls use with its uncompressed content and with the media
// type that its content has. The reader returns io.EOF only if the digest and the size of
// the blob are right.
func (f *fetcher) stream(ctx context.Context, w *wanted, use func(plain io.Reader, kind string) error) (err error) {
	info := types.BlobInfo{Digest: w.blob.Digest, Size: w.blob.Size, MediaType: w.blob.MediaType}
	r, err := openBlob(ctx, f.src, info, f.known.BlobInfoCache)
	if err != nil {
		return err
	}
	in := &counted{r: blobs.Verified(r, w.blob), tell: func(n int64) { f.tell(w, n, false) }}
	defer func() { err = errors.Join(err, r.Close()) }()
	plain, kind, err := decompress(in)
	if err != nil {
		return err
	}
	defer func() { _ = plain.Close() }()
	return use(&whole{plain: plain, blob: in}, kind)
}

// remember records the diffID and the compression of a blob. The caller must have
// computed both from the content.
func (f *fetcher) remember(w *wanted, diffID digest.Digest, kind string) {
	f.known.compressed(w.blob.Digest, kind)
	published := blobs.Layer{DiffID: diffID, Desc: ocispec.Descriptor{MediaType: kind, Digest: w.blob.Digest, Size: w.blob.Size}}
	if err := f.client.memory().Publish(published); err != nil {
		f.client.logger.Debug("it is not remembered how a layer was published", "layer", diffID, "error", err)
	}
}

// Unpacked records that a blob contains the layer diffID. The caller must have verified
// the digest of the blob and computed diffID from its content.
func (c *Client) Unpacked(blob ocispec.Descriptor, diffID digest.Digest) {
	if err := c.memory().Unpacked(blobs.Layer{Desc: blob, DiffID: diffID}); err != nil {
		c.logger.Debug("the content of a blob is not remembered", "blob", blob.Digest, "error", err)
	}
}

// Holds returns an error if a blob of the image ref, a complete name, does not contain
// the layer diffID. If the blob was never unpacked on this machine, Holds fetches and
// hashes it and remembers the result. The client must have a store.
func (c *Client) Holds(ctx context.Context, ref string, blob ocispec.Descriptor, diffID digest.Digest) (err error) {
	if c.unpacked(blob.Digest, diffID) {
		return nil
	}
	named, err := parseName(ref)
	if err != nil {
		return err
	}
	from, err := docker.NewReference(named)
	if err != nil {
		return fmt.Errorf("image name %q: %w", ref, err)
	}
	sys := c.systemFor(ocispec.Platform{})
	f := &fetcher{client: c, known: openLocations(sys)}
	defer f.known.close()
	w := &wanted{blob: blob, diffID: diffID}
	if f.is(w) {
		return nil
	}
	if f.src, err = openSource(ctx, from, sys); err != nil {
		return explain("fetch", named, err)
	}
	defer func() { err = errors.Join(err, f.src.Close()) }()
	return explain("fetch", named, f.verify(ctx, []*wanted{w}))
}
