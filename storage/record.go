package storage

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/stringid"

	"github.com/shale-build/shale/internal/filelock"
)

// Records is a period in which layers are recorded. OpenRecords does three things once
// for all of these layers: it writes the file system to disk, waits for other processes
// that record layers, and announces the change.
type Records struct {
	store  *Store
	unlock func()
	done   func() error
}

// OpenRecords starts to record layers that have been staged before. The caller must call
// Close soon, because other processes wait for it.
func (s *Store) OpenRecords(ctx context.Context) (*Records, error) {
	if err := s.Sync(); err != nil {
		return nil, err
	}
	unlock, err := s.lockRecords(ctx)
	if err != nil {
		return nil, err
	}
	s.reserveOnce.Do(s.makeReserve)
	done, err := s.AnnounceLayers(ctx)
	if err != nil {
		unlock()
		return nil, err
	}
	return &Records{store: s, unlock: unlock, done: done}, nil
}

// Close ends the period and releases the lock for other processes.
func (r *Records) Close() error {
	err := r.done()
	r.unlock()
	return err
}

// Add makes a layer on parent, "" for none, from the staged content. If parent already
// has a layer with the same content on it, Add returns that layer, and the staged content
// stays until it is dropped. Add returns ErrLayerUnknown if parent was removed meanwhile.
func (r *Records) Add(ctx context.Context, parent string, st *Staged) (Layer, error) {
	if err := context.Cause(ctx); err != nil {
		return Layer{}, err
	}
	same, found, err := r.store.findAndHold(parent, st.DiffID())
	if err != nil || found {
		return same, err
	}
	id := r.store.newLayerID(parent, st.DiffID())
	// The hold must exist before the layer, because no image keeps the layer yet.
	if err := r.store.Hold(id); err != nil {
		return Layer{}, err
	}
	l, err := r.store.lib.ApplyStagedLayer(cstorage.ApplyStagedLayerOptions{
		ID:           id,
		ParentLayer:  parent,
		LayerOptions: &cstorage.LayerOptions{Flags: map[string]any{ownFlag: true}},
		DiffOutput:   st.out,
		DiffOptions:  &graphdriver.ApplyDiffWithDifferOpts{},
	})
	if errors.Is(err, cstorage.ErrLayerUnknown) {
		return Layer{}, fmt.Errorf("record layer on %s, which was removed meanwhile: %w", short(parent), ErrLayerUnknown)
	}
	if err != nil {
		r.store.noteMissing(st.out.Target)
		return Layer{}, fmt.Errorf("record layer: %w", err)
	}
	st.recorded()
	r.store.recordedOne.Store(true)
	return layerOf(l), nil
}

// Recorded reports whether a layer has been added to the store since it was opened.
func (s *Store) Recorded() bool { return s.recordedOne.Load() }

// ownFlag marks the layers that shale recorded. If no image has such a layer, it may be
// removed with the build cache. A layer that another program recorded may belong to an
// image that is still being pulled.
const ownFlag = "shale"

// OnFound sets a function that is called with each layer that was to be recorded or
// imported but existed already. nil unsets it. Such a layer may belong to an image that
// another program removes.
func (s *Store) OnFound(found func(layer string)) {
	if found == nil {
		s.onFound.Store(nil)
		return
	}
	s.onFound.Store(&found)
}

// findAndHold is FindLayer with a hold on the layer that it returns.
func (s *Store) findAndHold(parent string, diffID digest.Digest) (Layer, bool, error) {
	for {
		l, found, err := s.FindLayer(parent, diffID)
		if err != nil || !found {
			return Layer{}, false, err
		}
		if err := s.Hold(l.ID); err != nil {
			return Layer{}, false, err
		}
		_, err = s.Layer(l.ID)
		if errors.Is(err, ErrLayerUnknown) {
			continue // another process was removing it
		}
		if tell := s.onFound.Load(); tell != nil && err == nil {
			(*tell)(l.ID)
		}
		return l, err == nil, err
	}
}

// newLayerID returns the ID under which containers/image would record the layer
// (storage/storage_dest.go, layerID). A pull of an image that was built here thus finds
// its layers, and never finds an image with the same ID on other layers.
func (s *Store) newLayerID(parent string, diffID digest.Digest) string {
	id := diffID.Encoded()
	if parent != "" {
		id = digest.Canonical.FromString(parent + "+" + id).Encoded()
	}
	if _, err := s.lib.Layer(id); err == nil {
		// A layer that FindLayer does not return has this ID, for example one without a
		// known digest.
		return stringid.GenerateRandomID()
	}
	return id
}

// lockRecords makes other processes wait while this one looks for a layer and records it,
// so that two processes that made the same layer keep only one. Recording takes the
// store's own lock anyway.
func (s *Store) lockRecords(ctx context.Context) (unlock func(), err error) {
	dir, err := s.StateDir(".")
	if err != nil {
		return nil, err
	}
	f, err := filelock.Open(ctx, filelock.Host{}, filepath.Join(dir, "record.lock"), filelock.Exclusive)
	if err != nil {
		return nil, fmt.Errorf("lock the record of layers: %w", err)
	}
	return func() { _ = f.Close() }, nil
}
