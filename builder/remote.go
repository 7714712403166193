package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/remotecache"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
)

// importCaches lets the solver look in the caches of --cache-from. They are
// opened beside the front end; one that cannot be had is told of and left out, as
// the first build of a pipeline has none.
func (b *build) importCaches(ctx context.Context) {
	if len(b.cacheSources) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	im := &remotecache.Importer{Store: b.deps.Store, Logger: b.deps.Logger, Pulling: b.pulling, Imported: b.imported}
	for _, s := range b.cacheSources {
		im.Add(func() (remotecache.Source, bool) { return b.openCache(ctx, s) })
	}
	b.closers = append(b.closers, func() error {
		cancel()
		return im.Close()
	})
	b.solver.Import(im)
}

func (b *build) openCache(ctx context.Context, s cacheSource) (remotecache.Source, bool) {
	step := newStep(b.deps.Progress, "importing cache manifest from "+s.name)
	src := remotecache.Source{Name: s.name}
	a, err := s.open(ctx, b.deps.Registry)
	if err == nil {
		src.Layer, src.Close = a.Layer, a.Close
		src.Cache, err = remotecache.Decode(a.Manifest, a.Config)
	}
	step.done(err)
	if err != nil && ctx.Err() == nil {
		b.deps.Logger.Warn("a cache could not be imported", "from", s.name, "error", err)
	}
	return src, err == nil
}

// pulling shows a layer that is fetched from a cache.
func (b *build) pulling(source string, blob ocispec.Descriptor) func(error) {
	step := newStep(b.deps.Progress, "pulling from cache "+source)
	done := step.begin(blob.Digest.String())
	return func(err error) {
		done(err)
		step.done(err)
	}
}

// imported keeps when a layer was made. The image is another one without, no
// worse.
func (b *build) imported(layer string, created time.Time) {
	if created.IsZero() {
		created = time.Now()
	}
	if err := b.index.PutCreated(layer, created); err != nil {
		b.deps.Logger.Warn("the time of an imported layer was not recorded", "error", err)
	}
}

// chain lists a layer and all below it, base first, with the times at which they
// were made, here or elsewhere.
func (b *build) chain(layer string) ([]storage.Layer, error) {
	layers, err := b.deps.Store.Chain(layer)
	for i := range layers {
		if at, ok := b.index.Created(layers[i].ID); ok {
			layers[i].Created = at
		}
	}
	return layers, err
}

// exportCaches writes the caches of --cache-to.
func (b *build) exportCaches(ctx context.Context, f finished, layers *export.Layers) error {
	for _, t := range b.cacheTargets {
		if t.Type == "inline" {
			continue
		}
		step := newStep(b.deps.Progress, t.title())
		err := b.exportCache(ctx, t, f, layers, step)
		step.done(err)
		if err != nil && t.ignoreError && ctx.Err() == nil {
			b.deps.Logger.Warn("the cache was not exported", "to", t.where, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("export cache to %s: %w", t.where, err)
		}
	}
	return nil
}

// exportCache writes one cache. What is there already is kept within the bounds;
// should its blobs be gone, it is not.
func (b *build) exportCache(ctx context.Context, t cacheTarget, f finished, layers *export.Layers, step *step) error {
	before, err := b.cacheBefore(ctx, t)
	if err != nil {
		return err
	}
	err = b.writeCache(ctx, t, f, layers, before, step)
	if err != nil && before != nil && ctx.Err() == nil {
		b.deps.Logger.Debug("writing the cache anew", "to", t.where, "error", err)
		err = b.writeCache(ctx, t, f, layers, nil, step)
	}
	return err
}

// cacheBefore reads the cache that will be written over, nil for none.
func (b *build) cacheBefore(ctx context.Context, t cacheTarget) (*remotecache.Cache, error) {
	open := func() (*registry.Artifact, error) {
		return b.deps.Registry.OpenArtifact(ctx, t.where, platforms.DefaultSpec())
	}
	if t.Type == "local" {
		open = func() (*registry.Artifact, error) {
			return b.deps.Registry.OpenArtifactLayout(ctx, t.where+":"+t.tag, platforms.DefaultSpec())
		}
	}
	a, err := open()
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil //nolint:nilnil // no cache is a value here
	}
	if err != nil {
		return nil, err
	}
	defer a.Close() //nolint:errcheck // only read
	c, err := remotecache.Decode(a.Manifest, a.Config)
	if err != nil {
		// Something else, or of another version: it is replaced, as asked.
		b.deps.Logger.Debug("what is there is no cache", "at", t.where, "error", err)
		return nil, nil //nolint:nilnil // see above
	}
	return c, nil
}

func (b *build) writeCache(ctx context.Context, t cacheTarget, f finished, layers *export.Layers, before *remotecache.Cache, step *step) error {
	blobs := &cacheBlobs{layers: layers, compression: t.compression, made: map[digest.Digest]export.Blob{}}
	now := time.Now().UTC()
	col := remotecache.Collector{
		Chain: b.chain, Entries: b.index.List, Blob: blobs.make, Before: before, Now: now,
	}
	prepared := step.begin("preparing build cache for export")
	c, err := col.Collect(ctx, b.cacheTops(ctx, t, f))
	if err != nil {
		return err
	}
	if before != nil {
		c.Join(before)
	}
	c.Bound(now.Add(-t.maxAge), t.maxSize)
	manifest, config, err := c.Encode()
	prepared(err)
	if err != nil {
		return err
	}
	src := registry.Prepared{
		Manifest: manifest, MediaType: ocispec.MediaTypeImageManifest,
		Open: func(d digest.Digest) (io.ReadCloser, int64, error) { return blobs.open(d, config) },
	}
	step.note("writing cache manifest " + digest.FromBytes(manifest).String())
	if t.Type == "local" {
		return b.deps.Registry.WriteLayout(ctx, src, t.where, t.tag, step)
	}
	return b.deps.Registry.PushPrepared(ctx, src, t.where, registry.PreparedOptions{Progress: step})
}

// cacheTops are the topmost layers of what is exported.
func (b *build) cacheTops(ctx context.Context, t cacheTarget, f finished) []string {
	var tops []string
	for _, top := range f.tops {
		if top != "" {
			tops = append(tops, top)
		}
	}
	if t.max {
		for _, g := range f.graphs {
			tops = append(tops, b.solver.Results(ctx, g)...)
		}
	}
	return tops
}

// cacheBlobs are the compressed layers of a cache.
type cacheBlobs struct {
	layers      *export.Layers
	compression export.Compression

	mu   sync.Mutex
	made map[digest.Digest]export.Blob
}

func (cb *cacheBlobs) make(ctx context.Context, l storage.Layer) (ocispec.Descriptor, error) {
	made, err := cb.layers.Make(ctx, l, cb.compression)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	cb.mu.Lock()
	defer cb.mu.Unlock()
	cb.made[made.Desc.Digest] = made.Blob
	return made.Desc, nil
}

func (cb *cacheBlobs) open(d digest.Digest, config []byte) (io.ReadCloser, int64, error) {
	if d == digest.FromBytes(config) {
		return io.NopCloser(bytes.NewReader(config)), int64(len(config)), nil
	}
	cb.mu.Lock()
	blob, ok := cb.made[d]
	cb.mu.Unlock()
	if !ok {
		return nil, 0, fmt.Errorf("blob %s of the cache that was there is gone", d)
	}
	r, err := blob.Open()
	return r, blob.Desc.Size, err
}

// addInline writes the records of the result's own layers into its config, where
// --cache-to type=inline asks for that.
func (b *build) addInline(ctx context.Context, f finished) error {
	if !slices.ContainsFunc(b.cacheTargets, func(t cacheTarget) bool { return t.Type == "inline" }) {
		return nil
	}
	col := remotecache.Collector{
		Chain: b.chain, Entries: b.index.List, Now: time.Now(),
		Blob: func(_ context.Context, l storage.Layer) (ocispec.Descriptor, error) {
			return ocispec.Descriptor{Digest: l.DiffID, Size: l.Size}, nil // they are the image's
		},
	}
	for i, top := range f.tops {
		if top == "" {
			continue
		}
		c, err := col.Collect(ctx, []string{top})
		if err != nil {
			return err
		}
		p := &f.Platforms[i]
		if p.Config, err = c.Inline(p.Config, diffIDs(p.Layers)); err != nil {
			return err
		}
	}
	return nil
}

func diffIDs(layers []storage.Layer) []digest.Digest {
	ids := make([]digest.Digest, len(layers))
	for i, l := range layers {
		ids[i] = l.DiffID
	}
	return ids
}
