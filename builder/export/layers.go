package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Layers turns layers into the blobs that images are written with. A layer that
// several outputs, or several platforms, want in the same form is compressed
// once. It is safe for concurrent use.
type Layers struct {
	// Open streams a layer's uncompressed tar.
	Open func(layer string) (io.ReadCloser, error)
	// TempDir holds compressed layers until Close.
	TempDir string
	// Origin, if not nil, finds layers of a base as they were published.
	Origin func(diffID digest.Digest) (Origin, bool)

	lost  atomic.Bool
	mu    sync.Mutex
	known map[layerForm]func() (Layer, error)
}

// Layer is a layer in the form it is written in.
type Layer struct {
	Blob
	// DiffID is of its uncompressed form.
	DiffID digest.Digest
}

// Blob is a part of an image.
type Blob struct {
	// Desc has OCI's media type.
	Desc ocispec.Descriptor
	open func() (io.ReadCloser, error)
}

// Open streams the blob.
func (b Blob) Open() (io.ReadCloser, error) { return b.open() }

// Make returns l compressed.
func (ls *Layers) Make(ctx context.Context, l storage.Layer, c Compression) (Layer, error) {
	return ls.make(ctx, l, c, nil, false)
}

type layerForm struct {
	diffID      digest.Digest
	compression string
	level       int
	clamped     bool
	epoch       int64
	published   bool
}

// annotationRewritten is what BuildKit puts on a layer whose timestamps were
// rewritten: it is part of the manifest and so of the image's digest.
const annotationRewritten = "buildkit/rewritten-timestamp"

// make returns l compressed, with the times of its files clamped to epoch
// unless that is nil; with published as it is in a registry, if it is in one.
func (ls *Layers) make(ctx context.Context, l storage.Layer, c Compression, epoch *time.Time, published bool) (Layer, error) {
	form := layerForm{diffID: l.DiffID, compression: c.Type, published: published}
	if c.Level != nil {
		form.level = *c.Level + 1000
	}
	if epoch != nil {
		form.clamped, form.epoch = true, epoch.Unix()
	}
	ls.mu.Lock()
	if ls.known == nil {
		ls.known = map[layerForm]func() (Layer, error){}
	}
	made, ok := ls.known[form]
	if !ok {
		made = sync.OnceValues(func() (Layer, error) {
			if published {
				if out, ok := ls.published(ctx, l); ok {
					return out, nil
				}
			}
			out, err := ls.write(ctx, l, c, epoch)
			if err != nil {
				return out, fmt.Errorf("write layer %s: %w", l.DiffID, err)
			}
			return out, nil
		})
		ls.known[form] = made
	}
	ls.mu.Unlock()
	return made()
}

func (ls *Layers) write(ctx context.Context, l storage.Layer, c Compression, epoch *time.Time) (out Layer, err error) {
	out.Desc.MediaType = c.mediaType()
	if c.Type == Uncompressed && epoch == nil {
		out.DiffID = l.DiffID
		out.Desc.Digest, out.Desc.Size = l.DiffID, l.Size
		out.open = func() (io.ReadCloser, error) { return ls.Open(l.ID) }
		return out, nil
	}
	src, err := ls.Open(l.ID)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	in := &rememberingReader{r: contextReader{ctx, src}}
	var r io.Reader = in
	if epoch != nil {
		clamped := clampTimes(r, *epoch)
		defer func() { _ = clamped.Close() }()
		r = clamped
	}
	tmp, err := os.CreateTemp(ls.TempDir, "layer-")
	if err != nil {
		return out, fmt.Errorf("make temporary file: %w", err)
	}
	defer func() {
		if err := errors.Join(err, tmp.Close()); err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	plain, blob := digest.Canonical.Digester(), newSummed(tmp)
	if out.Desc.Annotations, err = c.compress(blob, io.TeeReader(r, plain.Hash())); err != nil {
		if in.err != nil {
			err = in.err
		}
		return out, err
	}
	out.DiffID = plain.Digest()
	out.Desc.Digest, out.Desc.Size = blob.hash.Digest(), blob.n
	out.open = func() (io.ReadCloser, error) { return os.Open(tmp.Name()) }
	if epoch != nil {
		if out.Desc.Annotations == nil {
			out.Desc.Annotations = map[string]string{}
		}
		out.Desc.Annotations[annotationRewritten] = strconv.FormatInt(epoch.Unix(), 10)
	}
	if c.Type == EStargz {
		return out, out.readBack()
	}
	return out, nil
}

// readBack completes an eStargz layer: its uncompressed form has a table of
// contents, too.
func (l *Layer) readBack() (err error) {
	f, err := l.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zr, err := pgzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("read compressed layer: %w", err)
	}
	defer func() { err = errors.Join(err, zr.Close()) }()
	plain := newSummed(io.Discard)
	if _, err := io.Copy(plain, zr); err != nil {
		return fmt.Errorf("read compressed layer: %w", err)
	}
	l.DiffID = plain.hash.Digest()
	estargzSize(l.Desc.Annotations, plain.n)
	return nil
}

// rememberingReader keeps the error that reading ended with: not every library
// passes it on whole.
type rememberingReader struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (r *rememberingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// contextReader ends a long copy when ctx does.
type contextReader struct {
	ctx context.Context //nolint:containedctx // the reader lives for one copy
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
