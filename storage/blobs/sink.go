package blobs

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Sink is a destination of blobs. It is safe for concurrent use.
type Sink interface {
	// Has reports whether the sink has the blob, or can get it without a transfer from
	// here. In that case, the blob counts as written.
	Has(ctx context.Context, blob ocispec.Descriptor) (bool, error)
	// Put writes the content of r and returns its digest and size. If blob has a digest,
	// r must verify it and end with io.EOF only if it is right. If blob has no digest,
	// neither the digest nor the size is known before the end. If Put fails, the sink
	// does not keep the blob.
	Put(ctx context.Context, blob ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error)
	// Parallel returns the number of blobs that should be written at once.
	Parallel() int
}

// Nowhere is a Sink that discards all blobs. It is used to compute digests.
type Nowhere struct{}

var _ Sink = Nowhere{}

// Has implements Sink. It always returns true.
func (Nowhere) Has(context.Context, ocispec.Descriptor) (bool, error) { return true, nil }

// Put implements Sink.
func (Nowhere) Put(_ context.Context, _ ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error) {
	s := newSummed(io.Discard)
	if err := s.copy(r); err != nil {
		return "", 0, err
	}
	return s.digest(), s.n, nil
}

// Parallel implements Sink.
func (Nowhere) Parallel() int { return parallel }

// parallel is the number of layers that are compressed at once. Each of them uses several
// processors. More layers would take more memory and save no time.
const parallel = 2

// summed is a writer that computes the digest and the size of its content.
type summed struct {
	w    io.Writer
	hash digest.Digester
	n    int64
}

func newSummed(w io.Writer) *summed { return &summed{w: w, hash: digest.Canonical.Digester()} }

// Write implements io.Writer.
func (s *summed) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.hash.Hash().Write(p[:n])
	s.n += int64(n)
	return n, err
}

func (s *summed) digest() digest.Digest { return s.hash.Digest() }

// copy writes all of r.
func (s *summed) copy(r io.Reader) error {
	_, err := io.CopyBuffer(s, struct{ io.Reader }{r}, make([]byte, copySize))
	return err
}
