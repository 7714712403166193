package storage

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
)

// idLength is the number of digits of an image ID.
const idLength = 64

// Image finds an image by its complete name, by name@digest, by its ID, or by a short ID
// that no other image has. Otherwise it returns ErrImageUnknown or ErrAmbiguousID.
func (s *Store) Image(nameOrID string) (Image, error) {
	img, err := s.libraryImage(nameOrID)
	if err != nil {
		return Image{}, err
	}
	return s.imageOf(img), nil
}

func (s *Store) libraryImage(nameOrID string) (*cstorage.Image, error) {
	id := strings.TrimPrefix(nameOrID, digest.Canonical.String()+":")
	img, err := s.lib.Image(id)
	switch dgst := digestOf(nameOrID); {
	case err == nil && dgst != "" && !hasManifest(img, dgst):
		// Another tool gave this name to an image with another digest.
		return s.imageByDigest(nameOrID)
	case err == nil:
		return img, nil
	case !errors.Is(err, cstorage.ErrImageUnknown):
		return nil, fmt.Errorf("read image %s: %w", nameOrID, err)
	case isHex(id) && len(id) < idLength:
		// All images are searched only after the lookup has failed.
		return nil, s.whyUnknown(nameOrID, id)
	}
	return s.imageByDigest(nameOrID)
}

func (s *Store) whyUnknown(what, prefix string) error {
	all, err := s.lib.Images()
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for i := range all {
		if strings.HasPrefix(all[i].ID, prefix) {
			return fmt.Errorf("image %s: %w", what, ErrAmbiguousID)
		}
	}
	return fmt.Errorf("image %s: %w", what, ErrImageUnknown)
}

// imageByDigest finds name@digest if the image has another name of the same repository,
// for example a tag. The digest may be that of the manifest or of the index that the
// image was picked from.
func (s *Store) imageByDigest(name string) (*cstorage.Image, error) {
	unknown := fmt.Errorf("image %s: %w", name, ErrImageUnknown)
	named, err := reference.ParseNamed(name)
	if err != nil {
		return nil, unknown
	}
	digested, ok := named.(reference.Digested)
	if !ok {
		return nil, unknown
	}
	same, err := s.lib.ImagesByDigest(digested.Digest())
	if err != nil {
		return nil, fmt.Errorf("look for image %s: %w", name, err)
	}
	for _, img := range same {
		if hasManifest(img, digested.Digest()) && slices.ContainsFunc(img.Names, func(n string) bool { return sameRepository(n, named) }) {
			return img, nil
		}
	}
	return nil, unknown
}

func sameRepository(name string, as reference.Named) bool {
	named, err := reference.ParseNamed(name)
	return err == nil && named.Name() == as.Name()
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdef") == ""
}

func (s *Store) imageOf(img *cstorage.Image) Image {
	dgst := img.Digest
	if d, ok := img.BigDataDigests[cstorage.ImageDigestBigDataKey]; ok {
		dgst = d
	}
	out := Image{
		ID: img.ID, Names: ownNames(img), Digest: dgst,
		TopLayer: img.TopLayer, Created: img.Created, ReadOnly: img.ReadOnly, Index: isIndex(img),
	}
	if out.Index {
		if one, err := s.representative(img.ID); err == nil {
			out.TopLayer, out.Created = one.TopLayer, one.Created
		}
	}
	return out
}

// ownNames returns the names of an image without its interim name.
func ownNames(img *cstorage.Image) []string {
	interim := interimName(img.ID)
	return slices.DeleteFunc(slices.Clone(img.Names), func(n string) bool { return n == interim })
}

// Images returns all images, newest first. An image without a manifest, which an
// interrupted tool can leave behind, is skipped and reported in the log.
func (s *Store) Images() ([]Image, error) {
	all, err := s.lib.Images()
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	images := make([]Image, 0, len(all))
	listed := map[string]bool{}
	for i := range all {
		// An image of an additional store that was named here is in both stores. The
		// library lists the images of its own store first.
		if listed[all[i].ID] {
			continue
		}
		listed[all[i].ID] = true
		if !slices.Contains(all[i].BigDataNames, cstorage.ImageDigestBigDataKey) {
			s.logger.Warn("an image in the store has no manifest", "image", all[i].ID)
			continue
		}
		images = append(images, s.imageOf(&all[i]))
	}
	members := s.members(all, "")
	for i := range images {
		images[i].Member = members[images[i].ID]
	}
	slices.SortStableFunc(images, func(a, b Image) int { return b.Created.Compare(a.Created) })
	return images, nil
}

// ImageManifest returns the manifest of the image with that name or ID.
func (s *Store) ImageManifest(id string) ([]byte, error) {
	img, err := s.libraryImage(id)
	if err != nil {
		return nil, err
	}
	data, err := s.lib.ImageBigData(img.ID, cstorage.ImageDigestBigDataKey)
	if err != nil {
		return nil, s.readError("manifest", img.ID, err)
	}
	return data, nil
}

// ImageConfig returns the config of the image with that name or ID. For an index, it
// returns the config of the image for this machine, or of the first image that is in the
// store.
func (s *Store) ImageConfig(id string) ([]byte, error) {
	img, err := s.libraryImage(id)
	if err != nil {
		return nil, err
	}
	if isIndex(img) {
		if img, err = s.representative(img.ID); err != nil {
			return nil, err
		}
	}
	dgst, err := s.configDigest(img)
	if err != nil {
		return nil, err
	}
	data, err := s.lib.ImageBigData(img.ID, dgst.String())
	if err != nil {
		return nil, s.readError("config", img.ID, err)
	}
	if dgst.Validate() == nil && dgst.Algorithm().FromBytes(data) != dgst {
		return nil, fmt.Errorf("read config of image %s: it does not have the digest %s", short(img.ID), dgst)
	}
	return data, nil
}

// readError returns the error for a part of an image that could not be read. It wraps
// ErrImageUnknown if another process has removed the image.
func (s *Store) readError(part, id string, err error) error {
	if _, gone := s.lib.Image(id); errors.Is(gone, cstorage.ErrImageUnknown) {
		err = ErrImageUnknown
	}
	return fmt.Errorf("read %s of image %s: %w", part, short(id), err)
}

// configDigest returns the digest of the image's config. It is nearly always the ID.
// Images whose layers have a table of contents (TOC) have another ID.
func (s *Store) configDigest(img *cstorage.Image) (digest.Digest, error) {
	byID := digest.NewDigestFromEncoded(digest.SHA256, img.ID)
	if slices.Contains(img.BigDataNames, byID.String()) {
		return byID, nil
	}
	manifest, err := s.lib.ImageBigData(img.ID, cstorage.ImageDigestBigDataKey)
	if err != nil {
		return "", s.readError("manifest", img.ID, err)
	}
	return configOf(manifest)
}
