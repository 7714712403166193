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

// estargz compresses r so that its files can be fetched one by one. The
// uncompressed form of the result is not r but begins with it: what is unpacked
// without its table of contents is r to the bit.
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

// estargzSize adds the size of the uncompressed form, which is only known when
// it has been read back.
func estargzSize(annotations map[string]string, size int64) {
	annotations[estargz.StoreUncompressedSizeAnnotation] = strconv.FormatInt(size, 10)
}

// readBack computes the digest and size of what a gzip stream written to it
// unpacks to.
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

// finish waits for the result.
func (b *readBack) finish() error {
	_ = b.Close()
	<-b.done
	return b.err
}
