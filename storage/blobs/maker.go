package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Progress receives reports about the transfer of blobs. It is called from many
// goroutines and must not block for long.
type Progress interface {
	// Update reports that current of total bytes of the blob id have been transferred.
	// total is 0 if it is not known yet. In the last call for a blob, done is true.
	Update(id string, current, total int64, done bool)
}

// Maker makes blobs from layers. It is safe for concurrent use.
type Maker struct {
	// Open returns a layer's uncompressed tar. The stream must end with io.EOF only if it
	// has the layer's diffID.
	Open func(layer string) (io.ReadCloser, error)
	// Memory and Logger may be nil.
	Memory *Memory
	Logger *slog.Logger
}

// Wanted is a layer and the form in which the caller needs it.
type Wanted struct {
	Layer storage.Layer
	Form  Form
	// Epoch is the latest time that a file may have, nil for no limit.
	Epoch *time.Time
	// Progress may be nil. The id of a blob is the layer's diffID.
	Progress Progress
}

// annotationRewritten is the annotation that BuildKit adds to a layer with rewritten
// timestamps. It is part of the manifest and therefore of the image's digest.
const annotationRewritten = "buildkit/rewritten-timestamp"

func (w Wanted) key() string {
	key := w.Layer.DiffID.String() + "/" + w.Form.id()
	if w.Epoch != nil {
		key += "/" + strconv.FormatInt(w.Epoch.Unix(), 10)
	}
	return key
}

// plain reports whether the blob is the layer itself, as the store has it.
func (w Wanted) plain() bool { return w.Form.Type == Uncompressed && w.Epoch == nil }

// known returns the descriptor and the diffID of the blob, if they are remembered.
func (m *Maker) known(w Wanted) (Layer, bool) {
	if w.plain() {
		desc := ocispec.Descriptor{MediaType: w.Form.MediaType(), Digest: w.Layer.DiffID, Size: w.Layer.Size}
		return Layer{Desc: desc, DiffID: w.Layer.DiffID}, w.Layer.Size >= 0
	}
	return m.Memory.find(w.key())
}

// Deliver sends a layer to a sink and returns the resulting blob. If the blob is
// remembered and the sink has it, Deliver neither makes nor reads it.
func (m *Maker) Deliver(ctx context.Context, w Wanted, to Sink) (Layer, error) {
	known, ok := m.known(w)
	if ok {
		has, err := to.Has(ctx, known.Desc)
		if err != nil {
			return Layer{}, err
		}
		if has {
			w.done()
			return known, nil
		}
	}
	made, err := m.send(ctx, w, known, to)
	if err != nil {
		return Layer{}, fmt.Errorf("write layer %s: %w", w.Layer.DiffID, err)
	}
	w.done()
	if ok && made.Desc.Digest == known.Desc.Digest || w.plain() {
		return made, nil
	}
	if err := m.Memory.put(w.key(), made); err != nil && m.Logger != nil {
		m.Logger.Debug("a blob will be compressed again next time", "layer", w.Layer.DiffID, "error", err)
	}
	return made, nil
}

func (w Wanted) done() {
	if w.Progress != nil {
		size := max(w.Layer.Size, 0)
		w.Progress.Update(w.Layer.DiffID.String(), size, size, true)
	}
}

// errShort is returned if a Sink reports success without reading the blob to EOF.
var errShort = errors.New("the blob was not read to its end")

func (m *Maker) send(ctx context.Context, w Wanted, known Layer, to Sink) (Layer, error) {
	s, err := m.stream(ctx, w)
	if err != nil {
		return Layer{}, err
	}
	desc := ocispec.Descriptor{MediaType: w.Form.MediaType(), Size: -1}
	if w.plain() && w.Layer.Size >= 0 {
		desc = known.Desc // the store verifies the content
	}
	dgst, size, err := to.Put(ctx, desc, s)
	if closeErr := s.Close(); closeErr != nil {
		err = closeErr // not every sink returns the whole error of its reader
	}
	if err == nil && desc.Digest == "" && !s.ended {
		err = errShort
	}
	if err != nil {
		return Layer{}, err
	}
	made := s.made
	made.Desc.Digest, made.Desc.Size = dgst, size
	return made, nil
}

// Read makes a blob that Deliver has returned once more, and returns its content. The
// stream ends with io.EOF only if it is that blob.
func (m *Maker) Read(ctx context.Context, w Wanted, blob ocispec.Descriptor) (io.ReadCloser, error) {
	s, err := m.stream(ctx, w)
	if err != nil || w.plain() {
		return s, err
	}
	return Verified(s, blob), nil
}

// stream is the content of a blob while it is made.
type stream struct {
	pipe *io.PipeReader
	done chan struct{}
	// ended reports that the stream was read to EOF.
	ended bool

	// These fields are valid after done is closed. made is the layer without the digest
	// and the size of the blob. err is the error of the whole stream, and readErr that of
	// the layer's files alone.
	made         Layer
	err, readErr error
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.pipe.Read(p)
	if errors.Is(err, io.EOF) {
		s.ended = true
	}
	return n, err
}

var errClosed = errors.New("nobody reads any more")

// Close ends the stream. It returns the error of the layer's files, if there was one.
func (s *stream) Close() error {
	select {
	case <-s.done:
		return s.err
	default:
	}
	_ = s.pipe.CloseWithError(errClosed)
	<-s.done
	return s.readErr
}

func (m *Maker) stream(ctx context.Context, w Wanted) (*stream, error) {
	src, err := m.Open(w.Layer.ID)
	if err != nil {
		return nil, err
	}
	r, pw := io.Pipe()
	s := &stream{pipe: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.err = errors.Join(s.write(ctx, pw, src, w), src.Close())
		pw.CloseWithError(s.err)
	}()
	return s, nil
}

func (s *stream) write(ctx context.Context, to io.Writer, src io.Reader, w Wanted) error {
	in := &reader{ctx: ctx, r: src, wanted: w}
	var r io.Reader = in
	digester := digest.Canonical.Digester()
	s.made = Layer{Desc: ocispec.Descriptor{MediaType: w.Form.MediaType()}, DiffID: w.Layer.DiffID}
	if w.Epoch != nil {
		clamped := clampTimes(in, *w.Epoch)
		defer func() { _ = clamped.Close() }()
		r = io.TeeReader(clamped, digester.Hash())
	}
	var back *readBack
	if w.Form.Type == EStargz {
		back = newReadBack()
		defer func() { _ = back.finish() }()
		to = io.MultiWriter(to, back)
	}
	annotations, err := w.Form.compress(to, r)
	if s.readErr = in.err; s.readErr != nil {
		return s.readErr
	}
	if err != nil {
		return err
	}
	if w.Epoch != nil {
		s.made.DiffID = digester.Digest()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationRewritten] = strconv.FormatInt(w.Epoch.Unix(), 10)
	}
	if back != nil {
		if err := back.finish(); err != nil {
			return err
		}
		s.made.DiffID = back.digest
		estargzSize(annotations, back.size)
	}
	s.made.Desc.Annotations = annotations
	return nil
}

// reader reads a layer, reports the progress and ends when ctx is done. It keeps the
// error of the read, because not every library returns the whole error.
type reader struct {
	ctx    context.Context //nolint:containedctx // lives for one layer
	r      io.Reader
	wanted Wanted
	n      int64
	told   time.Time
	err    error
}

// progressInterval is the time between two progress reports.
const progressInterval = 100 * time.Millisecond

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		r.err = err
		return 0, err
	}
	n, err := r.r.Read(p)
	r.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	if r.wanted.Progress != nil {
		if now := time.Now(); now.Sub(r.told) > progressInterval {
			r.told = now
			r.wanted.Progress.Update(r.wanted.Layer.DiffID.String(), r.n, max(r.wanted.Layer.Size, 0), false)
		}
	}
	return n, err
}
