package storage

import (
	"context"
	"errors"
	"fmt"
)

// Adopt returns a layer of this store with the content of top and of its parents, some
// of which may be in an additional image store. With native owners that is top itself.
// With recorded ones, the files of an additional store have no records and belong to
// ids that do not exist here, so its layers, and those on them, are unpacked once more
// from their own files. It returns an error if this user may not read one of them.
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
