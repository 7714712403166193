package storage

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
)

// OpenDiff returns the layer's uncompressed tar, bit-identical to the stream that has the
// digest DiffID. The stream ends with io.EOF only if its digest is right, otherwise with
// an error that wraps ErrCorruptLayer. The caller must close it. No lock of the store is
// held while the caller reads. OpenDiff returns ErrLayerUnknown if the store does not
// have the layer.
//
// OpenDiff puts the stream together from the layer's files and its tar-split, which has
// everything else. If the layer has no tar-split, or if its files are not kept under
// their names, containers/storage makes the stream. OpenDiff then copies the stream to a
// temporary file first, because containers/storage keeps the store locked until the last
// byte is read.
func (s *Store) OpenDiff(id string) (io.ReadCloser, error) {
	l, err := s.libraryLayer(id)
	if err != nil {
		return nil, err
	}
	r, err := s.assembleLayer(l)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errComposefs) {
		r, err = s.spoolDiff(l)
	}
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", short(id), err)
	}
	if l.UncompressedDigest == "" {
		return r, nil
	}
	return newVerifier(r, id, l.UncompressedDigest), nil
}

func (s *Store) assembleLayer(l *cstorage.Layer) (io.ReadCloser, error) {
	if l.UncompressedDigest == "" {
		return nil, os.ErrNotExist // without a digest the result could not be checked
	}
	dir, err := s.LayerDir(l.ID)
	if err != nil {
		return nil, err
	}
	recipe, err := os.Open(s.tarSplitPath(l.ID))
	if err != nil {
		return nil, fmt.Errorf("open tar-split: %w", err)
	}
	gz, err := gzip.NewReader(recipe)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%w: open tar-split: %w", ErrCorruptLayer, err), recipe.Close())
	}
	root, err := openLayerRoot(dir)
	if err != nil {
		return nil, errors.Join(err, gz.Close(), recipe.Close())
	}
	return &layerReader{assembler: newAssembler(gz, root), closers: []io.Closer{gz, recipe, root}}, nil
}

// tarSplitPath returns the path of a layer's tar-split in the store that has the layer.
func (s *Store) tarSplitPath(id string) string {
	root := s.GraphRoot()
	if dir, err := s.layerDir(id); err == nil { // ROOT/overlay/ID/diff
		root = filepath.Dir(filepath.Dir(filepath.Dir(dir)))
	}
	return filepath.Join(root, driverName+"-layers", id+".tar-split.gz")
}

type layerReader struct {
	*assembler
	closers []io.Closer
}

// Close closes the layer's files.
func (r *layerReader) Close() error {
	r.closeFile()
	var errs []error
	for _, c := range r.closers {
		errs = append(errs, c.Close())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// spoolDiff copies the library's stream of the layer into a temporary file, so that the
// library's lock is held only for the time of the copy.
func (s *Store) spoolDiff(l *cstorage.Layer) (_ io.ReadCloser, err error) {
	f, err := s.tempFile()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	none := archive.Uncompressed
	r, err := s.lib.Diff("", l.ID, &cstorage.DiffOptions{Compression: &none})
	if err != nil {
		return nil, fmt.Errorf("make diff: %w", err)
	}
	_, err = io.Copy(f, r)
	// Close must be called exactly once: a second Close of the library's reader crashes
	// the process.
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("make diff: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("rewind: %w", err)
	}
	return f, nil
}

// verifier passes a stream on and compares its digest at the end.
type verifier struct {
	r    io.ReadCloser
	id   string
	want digest.Digest
	hash hash.Hash
	err  error
}

func newVerifier(r io.ReadCloser, id string, want digest.Digest) io.ReadCloser {
	if !want.Algorithm().Available() {
		return &verifier{r: r, id: id, err: fmt.Errorf("layer %s: %w: diffID %q cannot be computed", short(id), ErrCorruptLayer, want)}
	}
	return &verifier{r: r, id: id, want: want, hash: want.Algorithm().Hash()}
}

// Read returns io.EOF only if the stream is complete and its digest is right.
func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	switch {
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		v.err = v.check()
	default:
		v.err = fmt.Errorf("read layer %s: %w", short(v.id), err)
	}
	return n, v.err
}

func (v *verifier) check() error {
	if got := digest.NewDigest(v.want.Algorithm(), v.hash); got != v.want {
		return fmt.Errorf("read layer %s: %w: its files give %s instead of %s; they were changed in the store", short(v.id), ErrCorruptLayer, got, v.want)
	}
	return io.EOF
}

// Close closes the stream.
func (v *verifier) Close() error { return v.r.Close() }
