package cli

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/storage"
)

// localRegistry is the registry in the name of an image if the user has not named one.
// podman and buildah use the same.
const localRegistry = "localhost"

// imageReader is the part of the store that commands need if they only read images.
type imageReader interface {
	Image(nameOrID string) (storage.Image, error)
	Images() ([]storage.Image, error)
	ImageConfig(id string) ([]byte, error)
	ImageManifest(id string) ([]byte, error)
	Chain(layer string) ([]storage.Layer, error)
	ContentSize(l storage.Layer) (int64, error)
}

// imageStore is the part of the store that commands need if they change images.
type imageStore interface {
	imageReader
	AddNames(id string, names ...string) error
	RemoveNames(id string, names ...string) error
	RemoveImage(id string, how storage.Removal) (deletedLayers []string, err error)
}

var _ imageStore = (*storage.Store)(nil)

// candidates returns the complete names for which name may stand in the store, most
// likely first: that of an image built on this machine, then that of docker.io.
func candidates(name string) ([]string, error) {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, fmt.Errorf("invalid image name %q: %w", name, err)
	}
	if _, digested := named.(reference.Digested); !digested {
		named = reference.TagNameOnly(named)
	}
	full := named.String()
	if builder.HasRegistry(name) {
		return []string{full}, nil
	}
	return []string{localName(full), full}, nil
}

// storeName returns the complete name that an image gets in the store if a user calls
// it name.
func storeName(name string) (string, error) {
	names, err := candidates(name)
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// localName replaces the registry docker.io in a normalized name with localRegistry.
// Normalization adds docker.io to a name without a registry.
func localName(normalized string) string {
	path := strings.TrimPrefix(normalized, "docker.io/")
	return localRegistry + "/" + strings.TrimPrefix(path, "library/")
}

var hexID = regexp.MustCompile(`^[0-9a-f]{3,64}$`)

// find returns the image that a user means, and the name in the store by which it was
// found. The name is "" if nameOrID is an ID. If it is both a name and an ID, find uses
// the name. It returns storage.ErrImageUnknown if there is no such image.
func find(images imageReader, nameOrID string) (storage.Image, string, error) {
	if id, ok := strings.CutPrefix(nameOrID, "sha256:"); ok {
		return findID(images, id, nameOrID)
	}
	names, err := candidates(nameOrID)
	if err != nil {
		// It may still be an ID: 64 hexadecimal digits are not a valid name.
		return findID(images, nameOrID, nameOrID)
	}
	for _, name := range names {
		img, err := images.Image(name)
		if err == nil {
			return img, name, nil
		}
		if !errors.Is(err, storage.ErrImageUnknown) {
			return storage.Image{}, "", err
		}
	}
	return findID(images, nameOrID, nameOrID)
}

func findID(images imageReader, id, asked string) (storage.Image, string, error) {
	if !hexID.MatchString(id) {
		return storage.Image{}, "", &noImageError{asked}
	}
	img, err := images.Image(id)
	if errors.Is(err, storage.ErrImageUnknown) {
		return storage.Image{}, "", &noImageError{asked}
	}
	return img, "", err
}

// noImageError is returned if the store does not contain the image. It is
// storage.ErrImageUnknown.
type noImageError struct{ name string }

func (e *noImageError) Error() string { return "no such image: " + e.name }

func (e *noImageError) Is(target error) bool { return target == storage.ErrImageUnknown }

// splitName splits a name in the store into the repository and the tag, the digest or
// both.
func splitName(name string) (repository, tag string, dgst digest.Digest) {
	repository = name
	if at := strings.IndexByte(repository, '@'); at >= 0 {
		dgst = digest.Digest(repository[at+1:])
		repository = repository[:at]
	}
	if colon := strings.LastIndexByte(repository, ':'); colon > strings.LastIndexByte(repository, '/') {
		tag = repository[colon+1:]
		repository = repository[:colon]
	}
	return repository, tag, dgst
}

// imageID returns an ID in docker's form.
func imageID(id string) string { return "sha256:" + id }

// shortID returns an ID in the form of tables.
func shortID(id string) string {
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(12, len(id))]
}

// tagsAndDigests returns the names of an image, split into repo:tag and repo@digest. If
// no name contains a digest, every repository with a tag gets the digest of the image.
func tagsAndDigests(img storage.Image) (tags, digests []string) {
	tags, digests = []string{}, []string{}
	seen := map[string]bool{}
	add := func(repository string, dgst digest.Digest) {
		name := repository + "@" + dgst.String()
		if dgst != "" && !seen[name] {
			seen[name] = true
			digests = append(digests, name)
		}
	}
	for _, name := range img.Names {
		if repository, _, dgst := splitName(name); dgst != "" {
			add(repository, dgst)
		}
	}
	pulled := len(digests) > 0
	for _, name := range img.Names {
		repository, tag, dgst := splitName(name)
		if tag != "" && dgst == "" {
			tags = append(tags, name)
			if !pulled {
				add(repository, img.Digest)
			}
		}
	}
	return tags, digests
}
