package storage

import (
	"errors"
	"fmt"
	"sync"

	cstorage "go.podman.io/storage"
	"go.podman.io/storage/pkg/stringid"
)

// Other programs do not know about shale's holds. But they never remove a layer that has
// another layer on it, or the layers below it. This is true for every image that they
// remove, even by force. So shale pins a layer that only an image of such a program
// keeps: it makes an empty layer on it for as long as it needs the layer. buildah keeps
// its base image by a container record, which would keep the image as well. But it does
// not protect the image from rmi --force, and a layer of the cache cannot have one.

// pins has the layers that this process has pinned.
type pins struct {
	mu sync.Mutex
	// by has the pins by the IDs of the layers that they keep.
	by map[string]*pin
}

// pin is an empty layer that keeps the layer below it.
type pin struct {
	id   string
	done func() error
}

// Pin keeps a layer and the layers below it in the store until Close, even if other
// programs remove their images. It returns ErrLayerUnknown if there is no such layer. If
// the process is killed, the next process that opens the store removes the pin.
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

// UseImage keeps an image and its layers until Close: shale's commands do not remove the
// image, and other programs do not remove its layers. For an index, it also keeps those
// of its images that are in the store. It returns ErrImageUnknown if the image has been
// removed meanwhile.
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

// HoldImage is UseImage without the protection from other programs. It is for short uses,
// because pinning a layer takes some tens of milliseconds.
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
