package storage

import (
	"errors"
	"fmt"
	"sync"

	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/stringid"
)

// Other programs do not know what shale holds. What they respect is that a layer
// has another one on it: whichever image they remove, by force too, such a layer
// and those below it stay. So a layer that only an image of theirs keeps is pinned by
// an empty layer on it as long as it is needed. A container record, by which buildah
// keeps its base, would keep the image as well, but not from rmi --force, and there
// is none for a layer of the cache.

// pins are the layers that this process pinned.
type pins struct {
	mu sync.Mutex
	// by are the pins by the layers that they keep.
	by map[string]*pin
}

// pin is an empty layer.
type pin struct {
	id   string
	done func() error
}

// Pin keeps a layer, with those below it, in the store until Close, whatever
// other programs remove. It returns ErrLayerUnknown when there is no such layer. A
// pin that a killed process leaves is removed when the store is opened next.
func (s *Store) Pin(layer string) error {
	s.pins.mu.Lock()
	defer s.pins.mu.Unlock()
	if s.pins.by[layer] != nil {
		return nil
	}
	l, err := s.libraryLayer(layer)
	if err != nil || l.ReadOnly {
		return err
	}
	p, err := s.newPin(layer)
	if err != nil {
		return err
	}
	if s.pins.by == nil {
		s.pins.by = map[string]*pin{}
	}
	s.pins.by[layer] = p
	return nil
}

// UseImage keeps an image and its layers until Close: shale's commands do not remove
// it, and others leave the layers. Of an index it keeps the images that are there. It
// returns ErrImageUnknown for an image that has been removed meanwhile.
func (s *Store) UseImage(id string) error {
	img, err := s.HoldImage(id)
	if err != nil {
		return err
	}
	if img.TopLayer != "" {
		if err := s.Pin(img.TopLayer); err != nil {
			return fmt.Errorf("image %s: %w", short(id), err)
		}
	}
	if !img.Index {
		return nil
	}
	instances, err := s.Instances(id)
	for _, in := range instances {
		if in.ImageID != "" && err == nil {
			err = s.UseImage(in.ImageID)
		}
	}
	return err
}

// HoldImage is UseImage with respect to shale's commands alone. Pinning layers takes
// some tens of milliseconds, which short uses are spared by it.
func (s *Store) HoldImage(id string) (Image, error) {
	if err := s.Hold(id); err != nil {
		return Image{}, err
	}
	return s.Image(id)
}

func (s *Store) newPin(layer string) (*pin, error) {
	p := &pin{id: stringid.GenerateRandomID()}
	var err error
	if p.done, err = s.announceNew(pendingAnchor, p.id); err != nil {
		return nil, err
	}
	_, err = s.lib.CreateLayer(p.id, layer, nil, "", false, nil)
	if err == nil {
		return p, nil
	}
	if errors.Is(err, cstorage.ErrLayerUnknown) {
		err = ErrLayerUnknown
	}
	return nil, errors.Join(fmt.Errorf("keep layer %s: %w", short(layer), err), p.done())
}

// remove ends a pin.
func (p *pin) remove(lib cstorage.Store) error {
	err := lib.DeleteLayer(p.id)
	if errors.Is(err, cstorage.ErrLayerUnknown) || errors.Is(err, cstorage.ErrNotALayer) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("remove the pin of a layer: %w", err)
	}
	return errors.Join(err, p.done())
}

// unpin ends all pins.
func (s *Store) unpin() error {
	s.pins.mu.Lock()
	defer s.pins.mu.Unlock()
	var errs []error
	for _, p := range s.pins.by {
		errs = append(errs, p.remove(s.lib))
	}
	s.pins.by = nil
	return errors.Join(errs...)
}
