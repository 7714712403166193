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

// Records is the time in which layers are recorded: what is done once for all of
// them is writing the file system to disk, waiting for other processes that do
// the same, and announcing it.
type Records struct {
	store  *Store
	unlock func()
	done   func() error
}

// OpenRecords begins to record what has been staged by now. The caller ends it
// soon by Close: others wait.
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

// Close lets others record.
func (r *Records) Close() error {
	err := r.done()
	r.unlock()
	return err
}

// Add makes a layer on parent, "" for none, of what was staged. When a layer of
// the same content exists there already, that one is returned, and what was
// staged stays where it is until it is dropped.
func (r *Records) Add(ctx context.Context, parent string, st *Staged) (Layer, error) {
	if err := context.Cause(ctx); err != nil {
		return Layer{}, err
	}
	same, found, err := r.store.findAndHold(parent, st.DiffID())
	if err != nil || found {
		return same, err
	}
	id := r.store.newLayerID(parent, st.DiffID())
	// Before it is there: nothing else keeps it until an image has it.
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

// ownFlag marks layers that shale recorded. Such a layer that no image has may be
// removed with the build cache; one that another program recorded may belong to an
// image that is still being pulled.
const ownFlag = "shale"

// OnFound has found called with each layer that was there already when it was to be
// recorded or imported; nil ends that. Such a layer may be of an image that another
// program removes.
func (s *Store) OnFound(found func(layer string)) {
	if found == nil {
		s.onFound.Store(nil)
		return
	}
	s.onFound.Store(&found)
}

// findAndHold is FindLayer for a layer that is needed.
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
			continue // it was being removed
		}
		if tell := s.onFound.Load(); tell != nil && err == nil {
			(*tell)(l.ID)
		}
		return l, err == nil, err
	}
}

// newLayerID is the ID under which containers/image would record the layer
// (storage/storage_dest.go, layerID): pulling an image that was built here
// finds its layers, and does not meet an image of the same ID on other ones.
func (s *Store) newLayerID(parent string, diffID digest.Digest) string {
	id := diffID.Encoded()
	if parent != "" {
		id = digest.Canonical.FromString(parent + "+" + id).Encoded()
	}
	if _, err := s.lib.Layer(id); err == nil {
		// Taken by a layer that does not say what is in it.
		return stringid.GenerateRandomID()
	}
	return id
}

// lockRecords lets one process at a time look for a layer and record it, so
// that two which made the same layer keep one. Recording takes the store's own
// lock anyway.
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
