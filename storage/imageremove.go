package storage

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	cstorage "go.podman.io/storage"
)

// Removal says how RemoveImage removes an image. The zero value removes it with its
// layers.
type Removal struct {
	// Still, if not nil, reports whether the image may still be removed. It is called
	// with the present state of the image, while no other process of shale can name or
	// unname it.
	Still func(Image) bool
	// KeepLayers keeps the image's layers for the build cache.
	KeepLayers bool
	// Held removes the image even if other processes hold it. These processes continue
	// with its layers, which stay.
	Held bool
}

// RemoveImage removes an image with all its names, and those of its layers that no other
// image, layer or container is built on. It returns the IDs of the removed layers. Layers
// that another process holds stay, with the layers below them. RemoveImage returns
// ErrImageInUse if a container of podman or buildah uses the image, or if another process
// holds it. It returns ErrImageChanged if how.Still returns false, ErrReadOnly for an
// image in an additional image store, and ErrImageUnknown if there is no such image.
func (s *Store) RemoveImage(id string, how Removal) (deletedLayers []string, err error) {
	img, err := s.libraryImage(id)
	if err != nil {
		return nil, err
	}
	if !how.Held && !img.ReadOnly {
		release, err := s.claim(img.ID)
		if errors.Is(err, errHeld) {
			return nil, fmt.Errorf("remove image %s: %w %w", short(img.ID), ErrImageInUse, errHeld)
		}
		if err != nil {
			return nil, err
		}
		defer release()
	}
	unlock, err := s.lockNames(img.ID)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// Another process may have removed or named the image meanwhile.
	if img, err = s.libraryImage(img.ID); err != nil {
		return nil, err
	}
	if img.ReadOnly {
		return nil, fmt.Errorf("remove image %s: %w", short(img.ID), ErrReadOnly)
	}
	if how.Still != nil {
		if ok, err := s.isStill(img, how.Still); err != nil {
			return nil, err
		} else if !ok {
			return nil, fmt.Errorf("remove image %s: %w", short(img.ID), ErrImageChanged)
		}
	}
	if isIndex(img) {
		return s.removeIndex(img, how)
	}
	return s.dropImage(img, how.KeepLayers || how.Held)
}

func (s *Store) isStill(img *cstorage.Image, still func(Image) bool) (bool, error) {
	all, err := s.lib.Images()
	if err != nil {
		return false, fmt.Errorf("list images: %w", err)
	}
	now := s.imageOf(img)
	now.Member = s.members(all, "")[img.ID]
	return still(now), nil
}

// dropImage removes an image that is not an index. It returns the layers that were
// removed with it.
func (s *Store) dropImage(img *cstorage.Image, keepLayers bool) (deletedLayers []string, err error) {
	layers, err := s.lib.DeleteImage(img.ID, false)
	if err != nil {
		return nil, removeError(img.ID, err)
	}
	keep := ""
	if keepLayers && len(layers) > 0 {
		keep = img.TopLayer
	}
	if keep == "" {
		release, held, err := s.claimLayers(layers)
		if err != nil {
			return nil, err
		}
		defer release()
		keep = held
	}
	if keep != "" {
		// The library removes all layers of the image without a child. The pin is such a
		// child for the moment of the removal.
		var p *pin
		p, err = s.newPin(keep)
		if err == nil {
			defer func() { err = errors.Join(err, p.remove(s.lib)) }()
		} else if !errors.Is(err, ErrLayerUnknown) {
			return nil, err
		}
	}
	_, err = s.lib.DeleteImage(img.ID, true)
	if errors.Is(err, cstorage.ErrLayerUnknown) {
		// The image is gone. Some of its layers were removed before, or they are in an
		// additional image store, where the library does not look.
		err = nil
	}
	if err != nil {
		return nil, removeError(img.ID, err)
	}
	return slices.DeleteFunc(layers, func(id string) bool {
		_, err := s.lib.Layer(id)
		return err == nil
	}), nil
}

// claimLayers claims layers, each of which is built on the next one. It stops at the
// first layer that another process holds and returns that layer's ID, "" if there is
// none.
func (s *Store) claimLayers(layers []string) (release func(), held string, err error) {
	var releases []func()
	release = func() {
		for _, r := range releases {
			r()
		}
	}
	for _, id := range layers {
		r, err := s.claim(id)
		if errors.Is(err, errHeld) {
			return release, id, nil
		}
		if err != nil {
			release()
			return nil, "", err
		}
		releases = append(releases, r)
	}
	return release, "", nil
}

func removeError(id string, err error) error {
	switch {
	case errors.Is(err, cstorage.ErrImageUsedByContainer):
		return fmt.Errorf("remove image %s: %w by a container, which podman ps --all --external lists", short(id), ErrImageInUse)
	case errors.Is(err, cstorage.ErrImageUnknown), errors.Is(err, cstorage.ErrNotAnImage), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("remove image %s: %w", short(id), ErrImageUnknown)
	}
	return fmt.Errorf("remove image %s: %w", short(id), err)
}

// removeIndex removes an index and those of its images that have no name and belong to no
// other index.
func (s *Store) removeIndex(img *cstorage.Image, how Removal) (deletedLayers []string, err error) {
	ids, err := s.instanceIDs(img.ID)
	if err != nil {
		return nil, err
	}
	if _, err := s.lib.DeleteImage(img.ID, true); err != nil {
		return nil, removeError(img.ID, err)
	}
	how.Still = Image.Dangling
	for _, id := range slices.Sorted(maps.Values(ids)) {
		layers, err := s.RemoveImage(id, how)
		switch {
		case err == nil:
			deletedLayers = append(deletedLayers, layers...)
		case errors.Is(err, ErrImageInUse), errors.Is(err, ErrImageUnknown), errors.Is(err, ErrReadOnly), errors.Is(err, ErrImageChanged):
		default:
			return deletedLayers, err
		}
	}
	return deletedLayers, nil
}
