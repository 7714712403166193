package storage

import (
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
)

// ImportLayer makes a layer on parent, "" for none, from an uncompressed tar. If parent
// already has a layer with the same content on it, ImportLayer returns that layer and
// does not read r. If the digest of the tar is not diffID, it returns ErrCorruptLayer and
// no files of the tar remain.
func (s *Store) ImportLayer(ctx context.Context, parent string, diffID digest.Digest, r io.Reader) (_ Layer, err error) {
	if err := context.Cause(ctx); err != nil {
		return Layer{}, err
	}
	if err := diffID.Validate(); err != nil {
		return Layer{}, fmt.Errorf("record layer: diffID %q: %w", diffID, err)
	}
	same, found, err := s.findAndHold(parent, diffID)
	if err != nil || found {
		return same, err
	}
	return s.unpackLayer(ctx, parent, newVerifier(io.NopCloser(r), s.newLayerID(parent, diffID), diffID))
}

// contextReader ends a long read when ctx is done.
type contextReader struct {
	ctx context.Context //nolint:containedctx // lives for one import
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
