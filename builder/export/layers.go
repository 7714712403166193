package export

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// Layers writes layers to a sink. It is safe for concurrent use.
type Layers struct {
	// Maker compresses layers that have no published form.
	Maker *blobs.Maker
	// Origin, if not nil, returns a layer of a base image in the form in which it was
	// published. It returns false if there is none.
	Origin func(ctx context.Context, diffID digest.Digest) (Origin, bool)

	lost atomic.Bool
}

// Layer is a layer in the form in which it was written.
type Layer struct {
	blobs.Layer
	open func(context.Context) (io.ReadCloser, error)
}

// Open returns the content of the blob again. The reader returns io.EOF only if it has
// read the same blob. The caller must close it.
func (l Layer) Open(ctx context.Context) (io.ReadCloser, error) { return l.open(ctx) }

// Make compresses l and writes it to a sink.
func (ls *Layers) Make(ctx context.Context, l storage.Layer, c Compression, to blobs.Sink) (Layer, error) {
	return ls.make(ctx, wantedLayer{Layer: l, Compression: c}, to, nil)
}

// wantedLayer is a layer and the form in which it is to be written.
type wantedLayer struct {
	storage.Layer
	Compression
	// epoch is the latest time that a file may have, or nil for any time.
	epoch *time.Time
	// published asks for the form in which the layer was published, if there is one. If
	// that form cannot be fetched and complete is set, the layer is compressed instead.
	published, complete bool
}

// make writes a layer to a sink.
func (ls *Layers) make(ctx context.Context, w wantedLayer, to blobs.Sink, progress blobs.Progress) (Layer, error) {
	if w.published {
		l, ok, err := ls.published(ctx, w, to)
		if ok || err != nil {
			return l, err
		}
	}
	want := blobs.Wanted{Layer: w.Layer, Form: w.Form, Epoch: w.epoch, Progress: progress}
	made, err := ls.Maker.Deliver(ctx, want, to)
	if err != nil {
		return Layer{}, err
	}
	want.Progress = nil
	return Layer{made, func(ctx context.Context) (io.ReadCloser, error) { return ls.Maker.Read(ctx, want, made.Desc) }}, nil
}

// together makes each form of a layer only once, for all callers that ask for it.
type together struct {
	mu   sync.Mutex
	made map[layerForm]func() (Layer, error)
}

type layerForm struct {
	diffID    digest.Digest
	clamped   bool
	epoch     int64
	published bool
}

func (t *together) once(w wantedLayer, do func() (Layer, error)) (Layer, error) {
	form := layerForm{diffID: w.DiffID, published: w.published}
	if w.epoch != nil {
		form.clamped, form.epoch = true, w.epoch.Unix()
	}
	t.mu.Lock()
	if t.made == nil {
		t.made = map[layerForm]func() (Layer, error){}
	}
	made, ok := t.made[form]
	if !ok {
		made = sync.OnceValues(do)
		t.made[form] = made
	}
	t.mu.Unlock()
	return made()
}

// CopyTo writes the layers and configs of the image to another sink.
func (img *Image) CopyTo(ctx context.Context, to blobs.Sink) error {
	for _, m := range img.Manifests {
		for _, l := range m.Layers {
			if err := put(ctx, to, l.Desc, l.open); err != nil {
				return err
			}
		}
	}
	return img.WriteConfigs(ctx, to)
}

func put(ctx context.Context, to blobs.Sink, desc ocispec.Descriptor, open func(context.Context) (io.ReadCloser, error)) error {
	if has, err := to.Has(ctx, desc); err != nil || has {
		return err
	}
	r, err := open(ctx)
	if err != nil {
		return err
	}
	_, _, err = to.Put(ctx, desc, r)
	if closeErr := r.Close(); closeErr != nil {
		err = closeErr // some sinks do not return the error of the reader
	}
	return err
}
