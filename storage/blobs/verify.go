package blobs

import (
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrMismatch is wrapped if a stream is not the expected blob.
var ErrMismatch = errors.New("not what was asked for")

// Verified returns a reader of r that ends with io.EOF only if the content has the digest
// and the size of blob. It returns an error as soon as r is too long.
func Verified(r io.ReadCloser, blob ocispec.Descriptor) io.ReadCloser {
	v := &verified{ReadCloser: r, blob: blob}
	if err := blob.Digest.Validate(); err != nil {
		v.err = fmt.Errorf("blob %q: %w", blob.Digest, err)
		return v
	}
	v.verifier = blob.Digest.Verifier()
	return v
}

type verified struct {
	io.ReadCloser
	blob     ocispec.Descriptor
	verifier digest.Verifier
	n        int64
	err      error
}

// Read implements io.Reader.
func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.ReadCloser.Read(p)
	v.n += int64(n)
	_, _ = v.verifier.Write(p[:n])
	switch {
	case v.n > v.blob.Size:
		err = fmt.Errorf("%s is %w: it has more than %d bytes", v.blob.Digest, ErrMismatch, v.blob.Size)
	case errors.Is(err, io.EOF) && v.n != v.blob.Size:
		err = fmt.Errorf("%s is %w: it has %d bytes instead of %d", v.blob.Digest, ErrMismatch, v.n, v.blob.Size)
	case errors.Is(err, io.EOF) && !v.verifier.Verified():
		err = fmt.Errorf("%s is %w: its content has another digest", v.blob.Digest, ErrMismatch)
	}
	v.err = err
	return n, err
}
