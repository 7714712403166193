package remotecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/storage"
)

// Source is a cache from which a build imports.
type Source struct {
	// Name is used in messages.
	Name  string
	Cache *Cache
	// Mounts reports whether a cache mount may be restored from this source. If it is
	// nil, none may be.
	Mounts func(id string) bool
	// Layer returns the uncompressed content of a blob.
	Layer func(ctx context.Context, blob ocispec.Descriptor) (io.ReadCloser, error)
	// Close releases the connection. It may be nil.
	Close func() error
}

// LayerStore is the part of a store into which layers are imported.
type LayerStore interface {
	// ImportLayer makes a layer from a tar. It returns an error if the tar does not have
	// that diffID.
	ImportLayer(ctx context.Context, parent string, diffID digest.Digest, r io.Reader) (storage.Layer, error)
	// FindLayer returns a layer with that diffID on a parent, and false if there is none.
	FindLayer(parent string, diffID digest.Digest) (storage.Layer, bool, error)
}

// Importer finds results in sources. It is safe for concurrent use.
type Importer struct {
	// Store receives the layers.
	Store LayerStore
	// Pulling is called for each blob before it is fetched. It returns a function that is
	// called after that, with the error or nil.
	Pulling func(source string, blob ocispec.Descriptor) (done func(error))
	// Imported is called for each imported layer with the time when it was made. The time
	// is zero if it is not known.
	Imported func(layer string, created time.Time)
	// Unpacked is called for each blob that was read to its end, and so verified, with
	// the diffID of the layer in it. It may be nil.
	Unpacked func(blob ocispec.Descriptor, diffID digest.Digest)
	// Owners is that of the build. It is nil if no owners are recorded.
	Owners *recorded.Owners
	Logger *slog.Logger

	sources []func() (Source, bool)
	opening sync.WaitGroup

	mu    sync.Mutex
	pulls map[digest.Digest]func() (string, error)
}

// Add adds a source. It calls open in the background, and the first Find waits for it. If
// open returns false, the source is skipped; open must report the reason to the user.
func (im *Importer) Add(open func() (Source, bool)) {
	once := sync.OnceValues(open)
	im.sources = append(im.sources, once)
	im.opening.Go(func() { once() })
}

// Close waits for sources that are still being opened, and closes all of them. The caller
// must have ended the contexts of the open functions, so that they return soon.
func (im *Importer) Close() error {
	im.opening.Wait()
	var errs []error
	for _, open := range im.sources {
		if src, _ := open(); src.Close != nil {
			errs = append(errs, src.Close())
		}
	}
	return errors.Join(errs...)
}

// Has reports whether a source has a record of key.
func (im *Importer) Has(key cache.Key) bool {
	return slices.ContainsFunc(im.sources, func(open func() (Source, bool)) bool {
		src, ok := open()
		if ok {
			_, ok = src.Cache.Record(key)
		}
		return ok
	})
}

// Find returns the record of a key from the first source that has it, and imports its
// layers into the store. If that fails, it logs a warning and tries the next source. It
// returns false if no source has the result.
func (im *Importer) Find(ctx context.Context, key cache.Key) (cache.Record, bool) {
	for _, open := range im.sources {
		src, ok := open()
		if !ok {
			continue
		}
		rec, ok := src.Cache.Record(key)
		if !ok {
			continue
		}
		layer, err := im.bring(ctx, src, rec.Chain)
		if err != nil {
			if ctx.Err() == nil {
				im.Logger.Warn("a cached result could not be imported; the step runs", "from", src.Name, "step", rec.Description, "error", err)
			}
			continue
		}
		return cache.Record{Layer: layer, Chain: rec.Chain, Created: rec.Created, Description: rec.Description}, true
	}
	return cache.Record{}, false
}

// bring returns the ID in the store of the topmost layer of a chain. It fetches missing
// layers. If several steps need the same layer, it is fetched only once.
func (im *Importer) bring(ctx context.Context, src Source, chain digest.Digest) (string, error) {
	if chain == "" {
		return "", nil
	}
	im.mu.Lock()
	if im.pulls == nil {
		im.pulls = map[digest.Digest]func() (string, error){}
	}
	pull, ok := im.pulls[chain]
	if !ok {
		pull = sync.OnceValues(func() (string, error) { return im.pull(ctx, src, chain) })
		im.pulls[chain] = pull
	}
	im.mu.Unlock()
	return pull()
}

func (im *Importer) pull(ctx context.Context, src Source, chain digest.Digest) (id string, err error) {
	l := src.Cache.layers[chain]
	parent, err := im.bring(ctx, src, l.Parent)
	if err != nil {
		return "", err
	}
	have, found, err := im.Store.FindLayer(parent, l.DiffID)
	if err != nil || found {
		return have.ID, err
	}
	done := im.Pulling(src.Name, l.Blob)
	defer func() { done(err) }()
	r, err := src.Layer(ctx, l.Blob)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	in := &toEnd{r: r}
	made, err := im.Store.ImportLayer(ctx, parent, l.DiffID, in)
	if err != nil {
		return "", fmt.Errorf("import layer %s: %w", l.DiffID, err)
	}
	if in.ended && im.Unpacked != nil {
		im.Unpacked(l.Blob, l.DiffID)
	}
	im.Imported(made.ID, l.Created)
	return made.ID, nil
}

// toEnd records whether a stream was read to its end.
type toEnd struct {
	r     io.Reader
	ended bool
}

// Read implements io.Reader.
func (t *toEnd) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.ended = t.ended || errors.Is(err, io.EOF)
	return n, err
}
