package storage

import (
	"context"
	"errors"
	"fmt"
)

// Adopt returns the ID of a layer of this store with the content of top and of its
// parents. Some of these layers may be in an additional image store. If the files have
// their native owners, the result is top itself. If owners are recorded, Adopt unpacks
// layers of an additional store, and all layers on them, once more from their own files:
// the files there have no recorded owners and belong to ids that do not exist in this
// user namespace. Adopt returns an error if this user may not read one of the files.
func (s *Store) Adopt(ctx context.Context, top string) (string, error) {
	if !s.recorded {
		return top, nil
	}
	chain, err := s.Chain(top)
	if err != nil {
		return "", err
	}
	parent := ""
	for _, l := range chain {
		if !l.ReadOnly && l.Parent == parent {
			parent = l.ID
			continue
		}
		own, err := s.adoptOne(ctx, parent, l)
		if err != nil {
			return "", fmt.Errorf("take layer %s from an additional image store: %w", short(l.ID), err)
		}
		parent = own.ID
	}
	return parent, nil
}

func (s *Store) adoptOne(ctx context.Context, parent string, l Layer) (_ Layer, err error) {
	own, found, err := s.findAndHold(parent, l.DiffID)
	if err != nil || found {
		return own, err
	}
	r, err := s.OpenDiff(l.ID)
	if err != nil {
		return Layer{}, err
	}
	st, err := s.StageTar(ctx, r, "")
	if err := errors.Join(err, r.Close()); err != nil {
		return Layer{}, err
	}
	defer func() { err = errors.Join(err, st.Drop()) }()
	records, err := s.OpenRecords(ctx)
	if err != nil {
		return Layer{}, err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	return records.Add(ctx, parent, st)
}
