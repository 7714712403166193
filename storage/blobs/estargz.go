package blobs

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
)

// estargz compresses r so that its files can be fetched one by one. The uncompressed form
// of the result begins with r and ends with a table of contents. If the result is
// unpacked without its table of contents, it gives exactly r.
func (f Form) estargz(w io.Writer, r io.Reader) (map[string]string, error) {
	zw := estargz.NewWriterLevel(w, f.gzipLevel())
	if err := zw.AppendTarLossLess(r); err != nil {
		return nil, fmt.Errorf("compress with estargz: %w", err)
	}
	toc, err := zw.Close()
	if err != nil {
		return nil, fmt.Errorf("compress with estargz: %w", err)
	}
	return map[string]string{estargz.TOCJSONDigestAnnotation: toc.String()}, nil
}

// estargzSize adds an annotation with the size of the uncompressed form. The size is
// known only after the blob has been read back.
func estargzSize(annotations map[string]string, size int64) {
	annotations[estargz.StoreUncompressedSizeAnnotation] = strconv.FormatInt(size, 10)
}

// readBack computes the digest and the size of the uncompressed form of a gzip stream
// that is written to it.
type readBack struct {
	*io.PipeWriter
	done chan struct{}

	digest digest.Digest
	size   int64
	err    error
}

func newReadBack() *readBack {
	r, w := io.Pipe()
	b := &readBack{PipeWriter: w, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		b.err = b.read(r)
		_ = r.CloseWithError(b.err)
	}()
	return b
}

func (b *readBack) read(r io.Reader) error {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("read compressed layer: %w", err)
	}
	digester := digest.Canonical.Digester()
	b.size, err = io.Copy(digester.Hash(), zr)
	if err := errors.Join(err, zr.Close()); err != nil {
		return fmt.Errorf("read compressed layer: %w", err)
	}
	b.digest = digester.Digest()
	_, err = io.Copy(io.Discard, r)
	return err
}

// finish waits for the result and returns the error.
func (b *readBack) finish() error {
	_ = b.Close()
	<-b.done
	return b.err
}
