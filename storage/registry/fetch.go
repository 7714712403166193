package registry

import (
	"bytes"
	"context"
	"encoding/json"
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

// layerTypes are those that a fetcher unpacks; the others are the library's.
var layerTypes = map[string]string{
	manifest.DockerV2SchemaLayerMediaTypeUncompressed: ocispec.MediaTypeImageLayer,
	manifest.DockerV2Schema2LayerMediaType:            ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayer:                       ocispec.MediaTypeImageLayer,
	ocispec.MediaTypeImageLayerGzip:                   ocispec.MediaTypeImageLayerGzip,
	ocispec.MediaTypeImageLayerZstd:                   ocispec.MediaTypeImageLayerZstd,
}

// fetchLayers brings in the layers of m. What it leaves out is left to the library,
// which finds the others in the store: images of old or unknown forms.
func (c *Client) fetchLayers(ctx context.Context, src types.ImageSource, m manifest.Manifest, sys *types.SystemContext, progress Progress) (err error) {
	f := &fetcher{client: c, src: src, progress: progress}
	list, err := f.layers(ctx, m)
	if err != nil || len(list) == 0 {
		return err
	}
	f.known = openLocations(sys)
	defer f.known.close()
	return f.all(ctx, list)
}

// wanted is a layer of the image: its blob as the manifest has it, and what the
// config says that is in it, which has to be checked.
type wanted struct {
	blob   ocispec.Descriptor
	diffID digest.Digest
	staged *storage.Staged
}

// layers lists the image's layers, none when they are not for us.
func (f *fetcher) layers(ctx context.Context, m manifest.Manifest) ([]*wanted, error) {
	config := m.ConfigInfo()
	if config.Digest == "" {
		return nil, nil // schema 1
	}
	data, err := f.config(ctx, config)
	if err != nil {
		return nil, err
	}
	var c struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	infos := m.LayerInfos()
	if json.Unmarshal(data, &c) != nil || len(c.RootFS.DiffIDs) != len(infos) {
		return nil, nil //nolint:nilerr // the library says what is wrong
	}
	list := make([]*wanted, len(infos))
	for i, info := range infos {
		diffID := c.RootFS.DiffIDs[i]
		if info.EmptyLayer || layerTypes[info.MediaType] == "" || diffID.Validate() != nil || info.Digest.Validate() != nil || info.Size < 0 {
			return nil, nil //nolint:nilerr // the library says what is wrong
		}
		list[i] = &wanted{diffID: diffID, blob: ocispec.Descriptor{MediaType: layerTypes[info.MediaType], Digest: info.Digest, Size: info.Size, URLs: info.URLs}}
	}
	return list, nil
}

func (f *fetcher) config(ctx context.Context, info types.BlobInfo) (_ []byte, err error) {
	if err := info.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("read manifest: config %q: %w", info.Digest, err)
	}
	if info.Size < 0 || info.Size > maxConfig {
		return nil, fmt.Errorf("read config: it has %d bytes", info.Size)
	}
	r, _, err := f.src.GetBlob(ctx, info, none.NoCache)
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

// all stages and records what is missing.
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

// is tells whether it is known, because it was computed here, that the blob has the
// layer that the config names.
func (f *fetcher) is(w *wanted) bool {
	if w.blob.Digest == w.diffID || f.known.UncompressedDigest(w.blob.Digest) == w.diffID {
		return true
	}
	same, err := f.client.store.Library().LayersByCompressedDigest(w.blob.Digest)
	return err == nil && len(same) > 0 && same[0].UncompressedDigest == w.diffID
}

func (f *fetcher) stage(ctx context.Context, w *wanted) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := f.open(ctx, w); err != nil {
		return fmt.Errorf("layer %s: %w", w.blob.Digest, err)
	}
	if got := w.staged.DiffID(); got != w.diffID {
		return fmt.Errorf("layer %s does not match the config's diffID %s: it is %s", w.blob.Digest, w.diffID, got)
	}
	f.known.RecordDigestUncompressedPair(w.blob.Digest, w.diffID)
	f.tell(w, w.blob.Size, true)
	return nil
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
	r, _, err := f.src.GetBlob(ctx, types.BlobInfo{Digest: w.blob.Digest, Size: w.blob.Size, URLs: w.blob.URLs, MediaType: w.blob.MediaType}, f.known.BlobInfoCache)
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
	staged, err := store.StageTar(ctx, &whole{plain: plain, blob: in}, w.blob.Digest)
	if err != nil {
		return err
	}
	w.staged = staged
	f.known.compressed(w.blob.Digest, kind)
	if kind == ocispec.MediaTypeImageLayer {
		return nil
	}
	published := blobs.Layer{DiffID: staged.DiffID(), Desc: ocispec.Descriptor{MediaType: kind, Digest: w.blob.Digest, Size: w.blob.Size}}
	if err := f.client.memory().Publish(published); err != nil {
		f.client.logger.Debug("it is not remembered how a layer was published", "layer", staged.DiffID(), "error", err)
	}
	return nil
}

func (f *fetcher) record(ctx context.Context, parent string, list []*wanted) (err error) {
	if list[0].staged == nil {
		return nil
	}
	records, err := f.client.store.OpenRecords()
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
