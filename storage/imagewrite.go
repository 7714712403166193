package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/manifest"
	cstorage "go.podman.io/storage"
)

// noSignatures is the metadata that the containers-storage transport writes for an image
// without signatures.
const noSignatures = "{}"

// CreateImage records an image under its ID, which is the sha256 of its config. It uses
// the layout of the containers-storage transport: the config is stored under its digest,
// and the manifest under two keys. If the image exists already, it gets the manifest and
// the names. Names move to this image from other images that have them. An image with
// names in spec is never in the store without a name, because a program that removes
// images without names would remove it. CreateImage returns ErrLayerUnknown if the store
// does not have spec.TopLayer, and ErrOtherLayers if the store has the image with other
// layers.
func (s *Store) CreateImage(ctx context.Context, spec ImageSpec) (Image, error) {
	if err := context.Cause(ctx); err != nil {
		return Image{}, err
	}
	config := digest.FromBytes(spec.Config)
	if named, err := configOf(spec.Manifest); err != nil || named != config {
		return Image{}, errors.Join(fmt.Errorf("record image: the manifest is not of the config %s", config), err)
	}
	data, err := bigData(spec, config)
	if err != nil {
		return Image{}, err
	}
	if err := s.Hold(config.Encoded()); err != nil {
		return Image{}, err
	}
	done, err := s.announce(ctx, pendingImage, config.Encoded())
	if err != nil {
		return Image{}, err
	}
	interim, err := s.recordImage(spec, config.Encoded(), data)
	if err == nil {
		err = s.AddNames(config.Encoded(), spec.Names...)
	}
	if err == nil && interim && len(spec.Names) == 0 {
		return s.withInterim(config.Encoded(), done)
	}
	if err == nil && interim {
		err = s.dropInterim(config.Encoded())
	}
	if err := errors.Join(err, done()); err != nil {
		return Image{}, err
	}
	return s.Image(config.Encoded())
}

// withInterim returns an image that keeps its interim name, see ImageSpec.Interim. done
// ends the announcement of the image. If the process is killed before that, the next
// process that opens the store removes the name.
func (s *Store) withInterim(id string, done func() error) (Image, error) {
	img, err := s.Image(id)
	if err != nil {
		return Image{}, errors.Join(err, done())
	}
	name := interimName(id)
	img.Names = slices.DeleteFunc(img.Names, func(n string) bool { return n == name })
	s.interimMu.Lock()
	defer s.interimMu.Unlock()
	if s.interim == nil {
		s.interim = map[string]func() error{}
	}
	if before := s.interim[id]; before != nil {
		return img, done()
	}
	s.interim[id] = done
	return img, nil
}

// endInterim removes the interim names of the images ids, or of all images if there are
// no ids.
func (s *Store) endInterim(ids ...string) error {
	s.interimMu.Lock()
	defer s.interimMu.Unlock()
	if len(ids) == 0 {
		ids = slices.Collect(maps.Keys(s.interim))
	}
	var errs []error
	for _, id := range ids {
		done := s.interim[id]
		if done == nil {
			continue
		}
		err := s.dropInterim(id)
		if errors.Is(err, ErrImageUnknown) {
			err = nil // another process removed the image by force
		}
		errs = append(errs, err, done())
		delete(s.interim, id)
	}
	return errors.Join(errs...)
}

// interimName returns the name that an image has until its own names have been taken from
// another image. The library does not record an image with a name that another image has.
func interimName(id string) string { return "localhost/shale-unnamed:" + id }

func (s *Store) dropInterim(id string) error {
	img, err := s.libraryImage(id)
	if err != nil {
		return err
	}
	if name := interimName(id); slices.Contains(img.Names, name) {
		return s.RemoveNames(id, name)
	}
	return nil
}

// configOf returns the digest of the config that a manifest names.
func configOf(data []byte) (digest.Digest, error) {
	m, err := manifest.FromBlob(data, manifest.GuessMIMEType(data))
	if err != nil {
		return "", fmt.Errorf("read manifest: %w", err)
	}
	config := m.ConfigInfo().Digest
	if err := CheckDigest(config); err != nil {
		return "", fmt.Errorf("read manifest: config: %w", err)
	}
	return config, nil
}

func bigData(spec ImageSpec, config digest.Digest) ([]cstorage.ImageBigDataOption, error) {
	dgst, err := manifest.Digest(spec.Manifest)
	if err != nil {
		return nil, fmt.Errorf("compute digest of manifest: %w", err)
	}
	return []cstorage.ImageBigDataOption{
		{Key: config.String(), Data: spec.Config, Digest: config},
		{Key: cstorage.ImageDigestManifestBigDataNamePrefix + "-" + dgst.String(), Data: spec.Manifest, Digest: dgst},
		{Key: cstorage.ImageDigestBigDataKey, Data: spec.Manifest, Digest: dgst},
	}, nil
}

// recordImage records the image. It reports whether the image has, or may have, an
// interim name.
func (s *Store) recordImage(spec ImageSpec, id string, data []cstorage.ImageBigDataOption) (interim bool, err error) {
	options := &cstorage.ImageOptions{CreationDate: createdOf(spec.Config), BigData: data, NamesHistory: spec.Names}
	names := spec.Names
	if interim = spec.Interim && len(names) == 0; interim {
		names = []string{interimName(id)}
	}
	_, err = s.lib.CreateImage(id, names, spec.TopLayer, noSignatures, options)
	if errors.Is(err, cstorage.ErrDuplicateName) {
		interim = true
		_, err = s.lib.CreateImage(id, []string{interimName(id)}, spec.TopLayer, noSignatures, options)
	}
	switch {
	case err == nil:
		return interim, nil
	case errors.Is(err, cstorage.ErrLayerUnknown):
		return false, fmt.Errorf("record image %s: layer %s: %w", short(id), short(spec.TopLayer), ErrLayerUnknown)
	case !errors.Is(err, cstorage.ErrDuplicateID):
		return false, fmt.Errorf("record image %s: %w", short(id), err)
	}
	if err := s.sameLayers(id, spec.Config); err != nil {
		return false, err
	}
	// If another process recorded the image at the same time, it may have an interim
	// name.
	return len(spec.Names) > 0, s.refreshImage(id, data)
}

// sameLayers returns an error if the existing image does not have the layers that its
// config names. Other tools record layers without checking them.
func (s *Store) sameLayers(id string, config []byte) error {
	img, err := s.lib.Image(id)
	if err != nil {
		return fmt.Errorf("read image %s: %w", short(id), err)
	}
	chain, err := s.Chain(img.TopLayer)
	if err == nil {
		err = CheckLayers(config, chain)
	}
	if err != nil {
		return fmt.Errorf("image %s is in the store with other layers; remove it first: %w", short(id), err)
	}
	return nil
}

// refreshImage gives an existing image the manifest of its latest build. The layers stay:
// they have the same content, because the config has the same diffIDs.
func (s *Store) refreshImage(id string, data []cstorage.ImageBigDataOption) error {
	img, err := s.lib.Image(id)
	if err != nil {
		return fmt.Errorf("read image %s: %w", short(id), err)
	}
	if img.ReadOnly {
		return nil
	}
	for _, d := range data {
		if img.BigDataDigests[d.Key] == d.Digest && slices.Contains(img.BigDataNames, d.Key) {
			continue
		}
		if err := s.lib.SetImageBigData(id, d.Key, d.Data, manifest.Digest); err != nil {
			return fmt.Errorf("update image %s: %w", short(id), err)
		}
	}
	return nil
}

func createdOf(config []byte) time.Time {
	var c struct {
		Created *time.Time `json:"created"`
	}
	if err := json.Unmarshal(config, &c); err != nil || c.Created == nil {
		return time.Time{}
	}
	return *c.Created
}

// AddNames adds names to an image. A name moves from another image that has it. Names
// that the image already has cause no write. A name with a digest must have the digest of
// the image's manifest, or of an index that the image is part of; otherwise AddNames
// returns ErrOtherDigest.
func (s *Store) AddNames(id string, names ...string) error {
	return s.changeNames(id, names, func(img *cstorage.Image) error {
		missing := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(img.Names, n) })
		if len(missing) == 0 {
			return nil
		}
		if err := checkNames(img, missing); err != nil {
			return err
		}
		return s.lib.AddNames(img.ID, missing)
	})
}

// RemoveNames removes names from an image. Names that the image does not have are
// ignored. It returns ErrReadOnly for an image in an additional image store.
func (s *Store) RemoveNames(id string, names ...string) error {
	return s.changeNames(id, names, func(img *cstorage.Image) error {
		if img.ReadOnly {
			return ErrReadOnly
		}
		return s.lib.RemoveNames(img.ID, names)
	})
}

func (s *Store) changeNames(id string, names []string, change func(*cstorage.Image) error) error {
	if len(names) == 0 {
		return nil
	}
	img, err := s.libraryImage(id)
	if err != nil {
		return err
	}
	unlock, err := s.lockNames(img.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if img, err = s.libraryImage(img.ID); err != nil {
		return err
	}
	err = change(img)
	if errors.Is(err, cstorage.ErrImageUnknown) || errors.Is(err, cstorage.ErrLayerUnknown) {
		return fmt.Errorf("name image %s: %w", short(img.ID), ErrImageUnknown)
	}
	if err != nil {
		return fmt.Errorf("name image %s: %w", short(img.ID), err)
	}
	return nil
}
