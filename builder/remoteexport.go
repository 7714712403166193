package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/remotecache"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
	"github.com/shale-build/shale/storage/registry"
)

// exportCaches writes the caches of --cache-to one after another, because a layer
// compressed for one cache is reused for the next. If the build is asked to end
// meanwhile, the export may continue for Options.ExportTime.
func (b *build) exportCaches(f finished, layers *export.Layers) error {
	if len(b.cacheTargets) == 0 {
		return nil
	}
	release, err := b.own()
	if err != nil {
		return err
	}
	defer release()
	for _, t := range b.cacheTargets {
		if t.Type == "inline" {
			continue
		}
		err := b.exportCache(t, f, layers)
		if err != nil && t.ignoreError && b.whole.Err() == nil {
			b.deps.Logger.Warn("the cache was not exported", "to", t.where, "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("export cache to %s: %w", t.where, err)
		}
	}
	return nil
}

func (b *build) exportCache(t cacheTarget, f finished, layers *export.Layers) error {
	step := newStep(b.deps.Progress, t.title())
	x := &cacheExport{build: b, target: t, finished: f, layers: layers, step: step}
	err := x.run(b.whole)
	step.done(err)
	return err
}

// cacheAttempts is how many times an export merges its records with those of other builds
// that write to the same cache at the same time.
const cacheAttempts = 10

// errCacheMoved is returned if the cache has changed since it was read.
var errCacheMoved = errors.New("another build has written to the cache meanwhile")

// cacheExport writes one cache.
type cacheExport struct {
	*build
	finished
	target cacheTarget
	layers *export.Layers
	step   *step
	blobs  *cacheBlobs
}

// run merges the records of the build with the existing cache. If the blobs of that cache
// are missing, run replaces the cache.
func (x *cacheExport) run(ctx context.Context) error {
	before, at, err := x.read(ctx)
	if err != nil {
		return err
	}
	err = x.merge(ctx, before, at)
	if err != nil && before != nil && ctx.Err() == nil {
		x.deps.Logger.Debug("writing the cache anew", "to", x.target.where, "error", err)
		err = x.merge(ctx, nil, at)
	}
	return err
}

// merge writes the build's records, merged with those of before, which has digest at. If
// another build has written to the cache since then, merge reads it again and repeats.
// The last attempt writes without a check. It may then lose the records of another build,
// which detects that with its own check after the write.
func (x *cacheExport) merge(ctx context.Context, before *remotecache.Cache, at digest.Digest) error {
	now := time.Now().UTC()
	ours, err := x.collect(ctx, before, now)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		c := &remotecache.Cache{}
		c.Join(ours)
		if before != nil {
			c.Join(before)
		}
		c.Bound(now.Add(-x.target.maxAge), x.target.maxSize)
		manifest, config, err := c.Encode()
		if err != nil {
			return err
		}
		if digest.FromBytes(manifest) == at {
			return nil // another build has written our records with its own
		}
		src := registry.Prepared{
			Manifest: manifest, MediaType: ocispec.MediaTypeImageManifest,
			Open: func(d digest.Digest) (io.ReadCloser, int64, error) { return x.blobs.open(d, config) },
		}
		if err = x.write(ctx, src, at, attempt == cacheAttempts); !errors.Is(err, errCacheMoved) {
			return err
		}
		x.deps.Logger.Debug("merging with the cache that another build wrote", "to", x.target.where, "attempt", attempt)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(rand.N(time.Duration(attempt) * 50 * time.Millisecond)): //nolint:gosec // so that two do not keep step
		}
		if before, at, err = x.read(ctx); err != nil {
			return err
		}
	}
}

// collect writes the layers that must be exported and that before does not have.
func (x *cacheExport) collect(ctx context.Context, before *remotecache.Cache, now time.Time) (_ *remotecache.Cache, err error) {
	tops := x.cacheTops(ctx, x.target, x.finished)
	to, err := x.sink(ctx, tops)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	x.blobs = &cacheBlobs{layers: x.layers, compression: x.target.compression, to: to}
	prepared := x.step.begin("preparing build cache for export")
	col := remotecache.Collector{Chain: x.chain, Entries: x.index.List, Blob: x.blobs.make, Before: before, Now: now}
	c, err := col.Collect(ctx, tops)
	if err == nil {
		err = x.addMounts(ctx, c, before, now)
	}
	prepared(err)
	return c, err
}

// sink returns the destination for layers as they are compressed. If the size limit may
// leave out some layers, the destination discards them, and the layers to keep are
// written later.
func (x *cacheExport) sink(ctx context.Context, tops []string) (closableSink, error) {
	var size int64
	seen := map[string]bool{}
	for _, top := range tops {
		layers, err := x.chain(top)
		if err != nil {
			return nil, err
		}
		for _, l := range layers {
			if !seen[l.ID] {
				seen[l.ID] = true
				size += max(l.Size, 0)
			}
		}
	}
	if size > x.target.maxSize {
		return nowhere{}, nil
	}
	if x.target.Type == "local" {
		return blobs.OpenLayout(x.target.where)
	}
	return x.deps.Registry.Upload(ctx, x.target.where, registry.UploadOptions{})
}

type nowhere struct{ blobs.Nowhere }

// Close implements io.Closer.
func (nowhere) Close() error { return nil }

type closableSink interface {
	blobs.Sink
	io.Closer
}

// read returns the existing cache, or nil if there is none. It also returns the digest of
// the manifest, or "" if there is no manifest.
func (x *cacheExport) read(ctx context.Context) (*remotecache.Cache, digest.Digest, error) {
	at, err := x.digest(ctx)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	open, where := x.deps.Registry.OpenArtifact, x.target.where
	if x.target.Type == "local" {
		open, where = x.deps.Registry.OpenArtifactLayout, x.target.where+":"+x.target.tag
	}
	a, err := open(ctx, where, platforms.DefaultSpec())
	if errors.Is(err, registry.ErrNotFound) {
		return nil, at, nil
	}
	if err != nil {
		return nil, at, err
	}
	defer a.Close() //nolint:errcheck // only read
	c, err := remotecache.Decode(a.Manifest, a.Config)
	if err != nil {
		// This is not a cache, or a cache of another version. The user asked to write
		// here, so it is replaced.
		x.deps.Logger.Debug("the existing artifact is not a cache", "at", x.target.where, "error", err)
		return nil, at, nil
	}
	return c, at, nil
}

func (x *cacheExport) digest(ctx context.Context) (digest.Digest, error) {
	if x.target.Type == "registry" {
		return x.deps.Registry.Digest(ctx, x.target.where)
	}
	dir, err := x.deps.Registry.OpenLayout(ctx, x.target.where)
	if err != nil {
		return "", err
	}
	at, err := dir.Digest(x.target.tag)
	return at, errors.Join(err, dir.Close())
}

// write replaces the cache that has digest at. If the digest has changed, it returns
// errCacheMoved. With force, it does not check the digest.
func (x *cacheExport) write(ctx context.Context, src registry.Prepared, at digest.Digest, force bool) error {
	x.step.note("writing cache manifest " + digest.FromBytes(src.Manifest).String())
	if x.target.Type == "local" {
		return x.writeLocal(ctx, src, at, force)
	}
	// The registry API has no conditional write of a manifest. The digest is checked
	// immediately before and after the write. Between them remains the time of one
	// request in which the records of another build can be lost.
	same := func(ctx context.Context, want digest.Digest) error {
		got, err := x.digest(ctx)
		if errors.Is(err, registry.ErrNotFound) {
			got, err = "", nil
		}
		if err == nil && got != want && !force {
			err = errCacheMoved
		}
		return err
	}
	err := x.deps.Registry.PushPrepared(ctx, src, x.target.where, registry.PreparedOptions{
		Progress: x.step, Check: func(ctx context.Context) error { return same(ctx, at) },
	})
	if err != nil {
		return err
	}
	return same(ctx, digest.FromBytes(src.Manifest))
}

// unusedBlobs is how long unused blobs stay in a cache directory, so that builds that
// read the cache can finish.
const unusedBlobs = time.Hour

func (x *cacheExport) writeLocal(ctx context.Context, src registry.Prepared, at digest.Digest, force bool) (err error) {
	dir, err := x.deps.Registry.OpenLayout(ctx, x.target.where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	now, err := dir.Digest(x.target.tag)
	if err != nil {
		return err
	}
	if now != at && !force {
		return errCacheMoved
	}
	if err := dir.Write(ctx, src, x.target.tag, x.step); err != nil {
		return err
	}
	if err := dir.Sweep(ctx, remotecache.ConfigMediaType, time.Now().Add(-unusedBlobs)); err != nil {
		x.deps.Logger.Warn("unused blobs of the cache were not removed", "error", err)
	}
	return nil
}

// cacheTops returns the topmost layers to export.
func (b *build) cacheTops(ctx context.Context, t cacheTarget, f finished) []string {
	var tops []string
	for _, top := range f.tops {
		if top != "" {
			tops = append(tops, top)
		}
	}
	for i, g := range f.graphs {
		switch {
		case t.max:
			tops = append(tops, b.solver.Results(ctx, g)...)
		case f.tops[i] == "":
			// The build failed: export the steps that are complete.
			if top := b.solver.Reached(ctx, g, below); top != "" {
				tops = append(tops, top)
			}
		}
	}
	return tops
}

// cacheBlobs are the compressed layers and cache mounts of a cache.
type cacheBlobs struct {
	layers      *export.Layers
	compression export.Compression
	// to receives the layers as they are compressed.
	to blobs.Sink

	mu sync.Mutex
	// made opens the blobs by their digests.
	made map[digest.Digest]opener
}

// opener returns a stream of a blob and the size of the blob in bytes.
type opener func() (io.ReadCloser, int64, error)

func (cb *cacheBlobs) make(ctx context.Context, l storage.Layer) (ocispec.Descriptor, error) {
	made, err := cb.layers.Make(ctx, l, cb.compression, cb.to)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	cb.add(made.Desc.Digest, func() (io.ReadCloser, int64, error) {
		r, err := made.Open(context.WithoutCancel(ctx))
		return r, made.Desc.Size, err
	})
	return made.Desc, nil
}

func (cb *cacheBlobs) addFile(desc ocispec.Descriptor, path string) {
	cb.add(desc.Digest, func() (io.ReadCloser, int64, error) {
		f, err := os.Open(path)
		return f, desc.Size, err
	})
}

func (cb *cacheBlobs) add(d digest.Digest, open opener) {
	cb.mu.Lock()
	defer cb.mu.Unlock()
	if cb.made == nil {
		cb.made = map[digest.Digest]opener{}
	}
	cb.made[d] = open
}

func (cb *cacheBlobs) open(d digest.Digest, config []byte) (io.ReadCloser, int64, error) {
	if d == digest.FromBytes(config) {
		return io.NopCloser(bytes.NewReader(config)), int64(len(config)), nil
	}
	cb.mu.Lock()
	open, ok := cb.made[d]
	cb.mu.Unlock()
	if !ok {
		return nil, 0, fmt.Errorf("blob %s of the cache that was there is gone", d)
	}
	return open()
}
