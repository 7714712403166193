package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
)

// Layer returns the layer with exactly that ID, or ErrLayerUnknown.
func (s *Store) Layer(id string) (Layer, error) {
	l, err := s.libraryLayer(id)
	if err != nil {
		return Layer{}, err
	}
	return layerOf(l), nil
}

func (s *Store) libraryLayer(id string) (*cstorage.Layer, error) {
	l, err := s.lib.Layer(id)
	if errors.Is(err, cstorage.ErrLayerUnknown) || err == nil && l.ID != id {
		return nil, fmt.Errorf("layer %s: %w", short(id), ErrLayerUnknown)
	}
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", short(id), err)
	}
	return l, nil
}

func layerOf(l *cstorage.Layer) Layer {
	size := l.UncompressedSize
	if l.UncompressedDigest == "" {
		size = -1
	}
	own, _ := l.Flags[ownFlag].(bool)
	return Layer{
		ID: l.ID, Parent: l.Parent, DiffID: l.UncompressedDigest, Size: size, Created: l.Created, Own: own, ReadOnly: l.ReadOnly,
	}
}

// Layers returns all layers that have a DiffID. A layer that is still written to, for
// example the topmost layer of a container, has none.
func (s *Store) Layers() ([]Layer, error) {
	all, err := s.lib.Layers()
	if err != nil {
		return nil, fmt.Errorf("list layers: %w", err)
	}
	layers := make([]Layer, 0, len(all))
	for i := range all {
		if all[i].UncompressedDigest != "" {
			layers = append(layers, layerOf(&all[i]))
		}
	}
	return layers, nil
}

// Chain returns the layer and all layers below it, base first. It returns nil for "".
func (s *Store) Chain(id string) ([]Layer, error) {
	var chain []Layer
	for id != "" {
		l, err := s.Layer(id)
		if err != nil {
			return nil, err
		}
		chain = append(chain, l)
		id = l.Parent
	}
	slices.Reverse(chain)
	return chain, nil
}

// LowerDirs returns the directories of the layer and of all layers below it. The paths
// are absolute and the topmost layer comes first, as overlayfs needs them. LowerDirs
// returns nil for "".
func (s *Store) LowerDirs(id string) ([]string, error) {
	chain, err := s.Chain(id)
	if err != nil {
		return nil, err
	}
	dirs := make([]string, 0, len(chain))
	for _, l := range slices.Backward(chain) {
		dir, err := s.LayerDir(l.ID)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	if len(dirs) == 0 {
		return nil, nil
	}
	return dirs, nil
}

// errComposefs is returned for a layer whose files are not kept under their names.
var errComposefs = errors.New("layer is kept as composefs, which cannot be built on: set use_composefs = \"false\" in storage.conf and pull the image again")

// LayerDir returns the directory that has the layer's files under their names. It returns
// errComposefs if the layer is kept as composefs.
func (s *Store) LayerDir(id string) (string, error) {
	dir, err := s.layerDir(id)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), "composefs-data")); err == nil {
		return "", fmt.Errorf("layer %s: %w", short(id), errComposefs)
	}
	return dir, nil
}

func (s *Store) layerDir(id string) (string, error) {
	// Nearly all layers are here. The driver's answer takes a look at every layer below.
	dir := filepath.Join(s.GraphRoot(), driverName, id, "diff")
	if _, err := os.Lstat(dir); err == nil {
		return dir, nil
	}
	meta, err := s.driver.Metadata(id)
	if err != nil {
		return "", fmt.Errorf("find files of layer %s: %w", short(id), err)
	}
	return meta["UpperDir"], nil
}

// FindLayer looks for a layer with the content diffID on parent, "" for none. It reports
// whether it found one.
func (s *Store) FindLayer(parent string, diffID digest.Digest) (Layer, bool, error) {
	same, err := s.lib.LayersByUncompressedDigest(diffID)
	if errors.Is(err, cstorage.ErrLayerUnknown) {
		return Layer{}, false, nil
	}
	if err != nil {
		return Layer{}, false, fmt.Errorf("look for layer %s: %w", diffID, err)
	}
	for i := range same {
		l := &same[i]
		// A layer with mappings is a copy for a container whose files belong to shifted
		// ids.
		if l.Parent != parent || l.UncompressedDigest != diffID || len(l.UIDMap) > 0 || len(l.GIDMap) > 0 {
			continue
		}
		if l.ReadOnly && s.recorded {
			continue // see Adopt
		}
		if _, err := s.LayerDir(l.ID); err == nil {
			return layerOf(l), true, nil
		}
	}
	return Layer{}, false, nil
}

// DeleteLayer removes a layer. It returns ErrLayerUnknown if there is no such layer. It
// returns ErrLayerInUse if a layer, an image or a container is built on it, or if another
// process holds it.
func (s *Store) DeleteLayer(id string) error {
	release, err := s.claim(id)
	if errors.Is(err, errHeld) {
		return fmt.Errorf("delete layer %s: %w %w", short(id), ErrLayerInUse, errHeld)
	}
	if err != nil {
		return err
	}
	defer release()
	if _, err := s.libraryLayer(id); err != nil {
		return err
	}
	err = s.lib.DeleteLayer(id)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, cstorage.ErrLayerUnknown), errors.Is(err, cstorage.ErrNotALayer):
		return fmt.Errorf("layer %s: %w", short(id), ErrLayerUnknown)
	case errors.Is(err, cstorage.ErrLayerHasChildren), errors.Is(err, cstorage.ErrLayerUsedByImage), errors.Is(err, cstorage.ErrLayerUsedByContainer):
		return fmt.Errorf("delete layer %s: %w: %w", short(id), ErrLayerInUse, err)
	}
	return fmt.Errorf("delete layer %s: %w", short(id), err)
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
