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

// fetcher brings the layers of an image into the store before the image is
// recorded. A layer is downloaded, checked, decompressed and unpacked in one
// stream, several of them at once; then they are recorded in their order.
type fetcher struct {
	client   *Client
	src      types.ImageSource
	known    locations
	progress Progress
}

// fetches is how many layers are unpacked at once.
const fetches = 3

// layerTypes are the types of layers, with OCI's names for them. An image must have
// no others. Layers that need not be distributed are asked for at the image's own
// registry, too: the addresses in their descriptors (urls) are an image's way to have
// any host asked that the builder reaches.
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

// wanted is a layer of the image: its blob as the manifest has it, and what the
// config says that is in it, which has to be checked.
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

// all stages and records the missing layers.
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
	// What came whole is kept in any case: another attempt goes on from there.
	return errors.Join(err, f.record(ctx, parent, list))
}

// present walks up the layers that are here already and returns the topmost of them
// with what is missing.
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

// is reports whether it is known, because it was computed here, that the blob has
// the layer that the config names.
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

// open reads a layer, from the store if its content is there on other layers.
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

// counted tells how much has been read of a blob.
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

// whole is a decompressed blob that ends with io.EOF only when the blob was read to
// its end, where it is verified. Decompressors stop where they have what they want.
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

// The beginnings of compressed streams (RFC 1952, RFC 8878).
var (
	gzipMagic = []byte{0x1f, 0x8b, 0x08}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// Blocks that are decompressed ahead.
const (
	aheadSize   = 256 << 10
	aheadBlocks = 8
)

// decompress goes by the content, as docker does, and tells its media type.
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
