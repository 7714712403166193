package storage

import (
	"context"
	"errors"
)

// CreateLayer lets fill work in a staging directory and records the result as a
// layer on parent, "" for none. When a layer of the same content exists on parent
// already, that one is returned and the new one is dropped. What was written is
// on disk before it is recorded. On error or cancellation nothing remains.
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
