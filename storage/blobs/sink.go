package blobs

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Sink is where blobs go. It is safe for concurrent use.
type Sink interface {
	// Has tells whether the blob is there, or can be had there without being
	// sent; from then on it counts as written.
	Has(ctx context.Context, blob ocispec.Descriptor) (bool, error)
	// Put writes what r yields and returns its digest and size. A blob with a
	// digest is one that r has checked when it ends with io.EOF; without one
	// neither digest nor size are known before the end. When Put fails there is
	// no such blob.
	Put(ctx context.Context, blob ocispec.Descriptor, r io.Reader) (digest.Digest, int64, error)
	// Parallel is how many blobs at once are of use.
	Parallel() int
}

// Nowhere is a Sink that keeps nothing: it is there to know a digest by.
type Nowhere struct{}

var _ Sink = Nowhere{}

// Has implements Sink: all is nowhere.
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

// parallel is how many layers are compressed at once. Each does so on several
// processors; more of them would take more memory and no less time.
const parallel = 2

// summed is what is known of a stream when it has been written.
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
