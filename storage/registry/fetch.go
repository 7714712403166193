package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	"go.podman.io/image/v5/types"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// fetcher copies the layers of an image into the store before the image is recorded. Each
// layer is downloaded, verified, decompressed and unpacked in one stream. Several layers
// are fetched at the same time. Then they are recorded in their order.
type fetcher struct {
	client   *Client
	src      types.ImageSource
	known    locations
	progress Progress
}

// fetches is the number of layers that are fetched at the same time.
const fetches = 3

// layerTypes maps the supported media types of layers to those of OCI. An image must not
// have layers of other types. Non-distributable layers are also fetched from the image's
// own registry. The URLs in their descriptors are ignored: with them an image could make
// the builder send requests to any host that it can reach.
var layerTypes = map[string]string{
	manifest.DockerV2SchemaLayerMediaTypeUncompressed: ocispec.MediaTypeImageLayer,
	manifest.DockerV2Schema2LayerMediaType:            ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayer:                       ocispec.MediaTypeImageLayer,
	ocispec.MediaTypeImageLayerGzip:                   ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayerZstd:                   ocispec.MediaTypeImageLayerZstd,

	manifest.DockerV2Schema2ForeignLayerMediaType:     ocispec.MediaTypeImageLayer,
	manifest.DockerV2Schema2ForeignLayerMediaTypeGzip: ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayerNonDistributable:       ocispec.MediaTypeImageLayer,     //nolint:staticcheck // old images have it
	ocispec.MediaTypeImageLayerNonDistributableGzip:   ocispec.MediaTypeImageLayerGzip, //nolint:staticcheck // as above
	ocispec.MediaTypeImageLayerNonDistributableZstd:   ocispec.MediaTypeImageLayerZstd, //nolint:staticcheck // as above
}

// wanted is a layer of an image: the blob in the manifest, and the diffID in the config,
// which must be verified.
type wanted struct {
	blob   ocispec.Descriptor
	diffID digest.Digest
	staged *storage.Staged
}

func (f *fetcher) config(ctx context.Context, info types.BlobInfo) (_ []byte, err error) {
	if err := info.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("read manifest: config %q: %w", info.Digest, err)
	}
	if info.Size < 0 || info.Size > maxConfig {
		return nil, fmt.Errorf("read config: it has %d bytes", info.Size)
	}
	r, err := openBlob(ctx, f.src, info, none.NoCache)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	in := blobs.Verified(r, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
	defer func() { err = errors.Join(err, in.Close()) }()
	data, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return data, nil
}

// all fetches the layers that the store does not have, and records them.
func (f *fetcher) all(ctx context.Context, list []*wanted) (err error) {
	parent, list, err := f.present(list)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return nil
	}
	defer func() {
		for _, w := range list {
			if w.staged != nil {
				err = errors.Join(err, w.staged.Drop())
			}
		}
	}()
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(1)
	if f.src.HasThreadSafeGetBlob() {
		group.SetLimit(fetches)
	}
	for _, w := range list {
		group.Go(func() error { return f.stage(groupCtx, w) })
	}
	err = group.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Also after an error, record the layers that are complete: the next attempt need not
	// fetch them again.
	return errors.Join(err, f.record(ctx, parent, list))
}

// present returns the topmost layer of list that the store has on top of the layers below
// it, and the layers above it, which are missing.
func (f *fetcher) present(list []*wanted) (parent string, missing []*wanted, err error) {
	for i, w := range list {
		if !f.is(w) {
			return parent, list[i:], nil
		}
		l, found, err := f.client.store.FindLayer(parent, w.diffID)
		if err != nil || !found {
			return parent, list[i:], err
		}
		parent = l.ID
		f.tell(w, w.blob.Size, true)
	}
	return parent, nil, nil
}

// is reports whether the blob is known to contain the layer that the config claims,
// because that was computed on this machine before.
func (f *fetcher) is(w *wanted) bool {
	return f.client.unpacked(w.blob.Digest, w.diffID) || f.known.UncompressedDigest(w.blob.Digest) == w.diffID
}

func (f *fetcher) stage(ctx context.Context, w *wanted) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := f.open(ctx, w); err != nil {
		return fmt.Errorf("layer %s: %w", w.blob.Digest, err)
	}
	return f.matches(w, w.staged.DiffID())
}

// open stages a layer. If the store has its content on another parent, it is read from
// there. Otherwise it is fetched.
func (f *fetcher) open(ctx context.Context, w *wanted) (err error) {
	store := f.client.store
	if f.is(w) {
		if same, err := store.Library().LayersByUncompressedDigest(w.diffID); err == nil && len(same) > 0 {
			r, err := store.OpenDiff(same[0].ID)
			if err == nil {
				w.staged, err = store.StageTar(ctx, r, w.blob.Digest)
				if err := errors.Join(err, r.Close()); err == nil {
					return nil
				}
			}
			f.client.logger.Debug("a layer that is here cannot be read and is fetched", "layer", w.diffID, "error", err)
		}
	}
	return f.stream(ctx, w, func(plain io.Reader, kind string) error {
		staged, err := store.StageTar(ctx, plain, w.blob.Digest)
		if err != nil {
			return err
		}
		w.staged = staged
		f.remember(w, staged.DiffID(), kind)
		return nil
	})
}

func (f *fetcher) record(ctx context.Context, parent string, list []*wanted) (err error) {
	if list[0].staged == nil {
		return nil
	}
	records, err := f.client.store.OpenRecords(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	for _, w := range list {
		if w.staged == nil || w.staged.DiffID() != w.diffID {
			break
		}
		l, err := records.Add(ctx, parent, w.staged)
		if err != nil {
			return err
		}
		parent = l.ID
	}
	return nil
}

func (f *fetcher) tell(w *wanted, current int64, done bool) {
	if f.progress != nil {
		f.progress.Update(w.blob.Digest.String(), current, w.blob.Size, done)
	}
}

// counted counts the bytes that have been read from a blob, and calls tell with the
// number.
type counted struct {
	r    io.Reader
	tell func(int64)
	n    int64
	told time.Time
	end  atomic.Bool
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if errors.Is(err, io.EOF) {
		c.end.Store(true)
	}
	if now := time.Now(); now.Sub(c.told) > progressInterval {
		c.told = now
		c.tell(c.n)
	}
	return n, err
}

// whole is the content of a compressed blob. A decompressor may stop before the end of
// the blob, but the blob is verified only at its end. So whole reads the rest before it
// returns io.EOF.
type whole struct {
	plain io.Reader
	blob  *counted
}

// Read implements io.Reader.
func (w *whole) Read(p []byte) (int, error) {
	n, err := w.plain.Read(p)
	if errors.Is(err, io.EOF) && !w.blob.end.Load() {
		if _, restErr := io.Copy(io.Discard, w.blob); restErr != nil {
			err = restErr
		}
	}
	return n, err
}

// The first bytes of compressed streams (RFC 1952, RFC 8878).
var (
	gzipMagic = []byte{0x1f, 0x8b, 0x08}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// The size and number of blocks that gzip decompresses ahead.
const (
	aheadSize   = 256 << 10
	aheadBlocks = 8
)

// decompress returns the uncompressed content of r and the media type of r as a layer.
// Like docker, it detects the compression from the content.
func decompress(r io.Reader) (io.ReadCloser, string, error) {
	head := make([]byte, len(zstdMagic))
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, "", err
	}
	r = io.MultiReader(bytes.NewReader(head[:n]), r)
	switch {
	case bytes.HasPrefix(head, gzipMagic):
		zr, err := pgzip.NewReaderN(r, aheadSize, aheadBlocks)
		if err != nil {
			return nil, "", fmt.Errorf("decompress: %w", err)
		}
		return zr, ocispec.MediaTypeImageLayerGzip, nil
	case bytes.HasPrefix(head, zstdMagic):
		zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, "", fmt.Errorf("decompress: %w", err)
		}
		return zr.IOReadCloser(), ocispec.MediaTypeImageLayerZstd, nil
	}
	return io.NopCloser(r), ocispec.MediaTypeImageLayer, nil
}
