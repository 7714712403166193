package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/stringid"
	"golang.org/x/sys/unix"
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
func (s *Store) OpenRecords() (*Records, error) {
	if err := s.Sync(); err != nil {
		return nil, err
	}
	unlock, err := s.lockRecords()
	if err != nil {
		return nil, err
	}
	s.reserveOnce.Do(s.makeReserve)
	done, err := s.AnnounceLayers()
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
	same, found, err := r.store.FindLayer(parent, st.DiffID())
	if err != nil || found {
		return same, err
	}
	l, err := r.store.lib.ApplyStagedLayer(cstorage.ApplyStagedLayerOptions{
		ID:           r.store.newLayerID(parent, st.DiffID()),
		ParentLayer:  parent,
		LayerOptions: &cstorage.LayerOptions{},
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
func (s *Store) lockRecords() (unlock func(), err error) {
	dir, err := s.StateDir(".")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "record.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the record of layers: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the record of layers: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
