package builder

import (
	"context"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/remotecache"
	"github.com/shale-build/shale/storage"
)

// importCaches makes the solver look up results in the caches of --cache-from. They are
// opened in the background while the front end runs. A cache that cannot be opened is
// reported and left out, because the cache does not exist before the first build of a
// pipeline.
func (b *build) importCaches(ctx context.Context) {
	if len(b.cacheSources) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	im := &remotecache.Importer{
		Store: b.deps.Store, Owners: b.deps.Owners, Logger: b.deps.Logger,
		Pulling: b.pulling, Imported: b.imported, Unpacked: b.deps.Registry.Unpacked,
	}
	for _, s := range b.cacheSources {
		im.Add(func() (remotecache.Source, bool) { return b.openCache(ctx, s) })
	}
	b.closers = append(b.closers, func() error {
		cancel()
		return im.Close()
	})
	b.solver.Import(im)
	b.caches.Restore = im.RestoreMount
}

func (b *build) openCache(ctx context.Context, s cacheSource) (remotecache.Source, bool) {
	step := newStep(b.deps.Progress, "importing cache manifest from "+s.name)
	src := remotecache.Source{Name: s.name, Mounts: s.mounts.includes}
	release, err := b.own()
	if err != nil {
		step.done(err)
		return src, false
	}
	defer release()
	a, err := s.open(ctx, b.deps.Registry)
	if err == nil {
		src.Close = a.Close
		src.Layer = func(ctx context.Context, blob ocispec.Descriptor) (io.ReadCloser, error) {
			release, err := b.own()
			if err != nil {
				return nil, err
			}
			defer release()
			return a.Layer(ctx, blob)
		}
		src.Cache, err = remotecache.Decode(a.Manifest, a.Config)
	}
	if err == nil && s.maxAge > 0 {
		src.Cache.DropOlder(time.Now().Add(-s.maxAge))
	}
	step.done(err)
	if err != nil && ctx.Err() == nil {
		b.deps.Logger.Warn("a cache could not be imported", "from", s.name, "error", err)
	}
	return src, err == nil
}

// pulling shows a layer that is being fetched from a cache.
func (b *build) pulling(source string, blob ocispec.Descriptor) func(error) {
	step := newStep(b.deps.Progress, "pulling from cache "+source)
	done := step.begin(blob.Digest.String())
	return func(err error) {
		done(err)
		step.done(err)
	}
}

// imported records the time at which an imported layer was made. If that fails, the image
// has another time in its history and so another digest, but it works as well.
func (b *build) imported(layer string, created time.Time) {
	if created.IsZero() {
		created = time.Now()
	}
	if err := b.index.PutCreated(layer, created); err != nil {
		b.deps.Logger.Warn("the time of an imported layer was not recorded", "error", err)
	}
}

// chain returns a layer and all layers below it, base first. Each has the time at which
// it was made, also if another host made it.
func (b *build) chain(layer string) ([]storage.Layer, error) {
	layers, err := b.deps.Store.Chain(layer)
	for i := range layers {
		if at, ok := b.index.Created(layers[i].ID); ok {
			layers[i].Created = at
		}
	}
	return layers, err
}

// addInline writes the cache records of the result's own layers into the config of the
// image, if --cache-to type=inline asks for that.
func (b *build) addInline(ctx context.Context, f finished) error {
	if !slices.ContainsFunc(b.cacheTargets, func(t cacheTarget) bool { return t.Type == "inline" }) {
		return nil
	}
	col := remotecache.Collector{
		Chain: b.chain, Entries: b.index.List, Now: time.Now(),
		Blob: func(_ context.Context, l storage.Layer) (ocispec.Descriptor, error) {
			return ocispec.Descriptor{Digest: l.DiffID, Size: l.Size}, nil // the image has the blob
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
