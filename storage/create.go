package storage

import (
	"context"
	"errors"
)

// CreateLayer calls fill with a staging directory and records the result as a layer on
// parent, "" for none. If parent already has a layer with the same content on it,
// CreateLayer returns that layer and drops the new one. The files are on disk before the
// layer is recorded. After an error or a cancellation, no files remain. It returns
// ErrLayerUnknown if the store does not have parent.
//
// No lock of the store is held while fill runs.
func (s *Store) CreateLayer(ctx context.Context, parent string, fill FillFunc) (_ Layer, err error) {
	if parent != "" {
		if _, err := s.Layer(parent); err != nil {
			return Layer{}, err
		}
	}
	st, err := s.Stage(ctx, fill)
	if err != nil {
		return Layer{}, err
	}
	defer func() { err = errors.Join(err, st.Drop()) }()
	r, err := s.OpenRecords(ctx)
	if err != nil {
		return Layer{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.Add(ctx, parent, st)
}
