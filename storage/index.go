package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/manifest"
	transport "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/transports"
	cstorage "go.podman.io/storage"
)

// Keys of the data that podman and buildah store beside an index (containers/common,
// libimage/manifests). instances.json maps each manifest to the location of its image.
// artifacts.json lists the entries that are not images.
const (
	instancesKey = "instances.json"
	artifactsKey = "artifacts.json"
)

// IndexSpec describes an index for CreateIndex.
type IndexSpec struct {
	// Index is stored as it is.
	Index []byte
	// Images maps the digest of each manifest in the index to the ID of its image.
	Images map[digest.Digest]string
	// Names are complete names. They move to the index from the images that have them.
	Names []string
}

// Instance is one image of an index.
type Instance struct {
	// Desc is the entry of the index.
	Desc ocispec.Descriptor
	// ImageID is the ID of the image in the store, "" if the image is not there.
	ImageID string
}

// CreateIndex records an index of images of the store in the form of podman's manifest
// lists. Its ID is its digest.
func (s *Store) CreateIndex(ctx context.Context, spec IndexSpec) (Image, error) {
	if err := context.Cause(ctx); err != nil {
		return Image{}, err
	}
	data, err := s.indexData(spec)
	if err != nil {
		return Image{}, err
	}
	id := digest.FromBytes(spec.Index).Encoded()
	for _, held := range append(slices.Collect(maps.Values(spec.Images)), id) {
		if err := s.Hold(held); err != nil {
			return Image{}, err
		}
	}
	done, err := s.announce(ctx, pendingImage, id)
	if err != nil {
		return Image{}, err
	}
	_, err = s.lib.CreateImage(id, nil, "", "", &cstorage.ImageOptions{BigData: data})
	if errors.Is(err, cstorage.ErrDuplicateID) {
		err = s.refreshImage(id, data)
	}
	if err := errors.Join(err, done()); err != nil {
		return Image{}, fmt.Errorf("record index %s: %w", short(id), err)
	}
	if err := s.AddNames(id, spec.Names...); err != nil {
		return Image{}, err
	}
	if members := slices.Collect(maps.Values(spec.Images)); len(members) > 0 {
		if err := s.endInterim(members...); err != nil {
			return Image{}, err
		}
	}
	return s.Image(id)
}

func (s *Store) indexData(spec IndexSpec) ([]cstorage.ImageBigDataOption, error) {
	where := map[digest.Digest]string{}
	for dgst, id := range spec.Images {
		ref, err := transport.Transport.NewStoreReference(s.lib, nil, id)
		if err != nil {
			return nil, fmt.Errorf("record index: %w", err)
		}
		where[dgst] = transports.ImageName(ref)
	}
	instances, err := json.Marshal(where)
	if err != nil {
		return nil, fmt.Errorf("record index: %w", err)
	}
	dgst, err := manifest.Digest(spec.Index)
	if err != nil {
		return nil, fmt.Errorf("compute digest of index: %w", err)
	}
	return []cstorage.ImageBigDataOption{
		{Key: cstorage.ImageDigestBigDataKey, Data: spec.Index, Digest: dgst},
		{Key: instancesKey, Data: instances, Digest: digest.FromBytes(instances)},
		{Key: artifactsKey, Data: []byte("{}"), Digest: digest.FromString("{}")},
	}, nil
}

// Instances returns the images of an index in the order of the index. It returns
// ErrNotAnIndex for an image that is not an index.
func (s *Store) Instances(nameOrID string) ([]Instance, error) {
	img, err := s.libraryImage(nameOrID)
	if err != nil {
		return nil, err
	}
	if !isIndex(img) {
		return nil, fmt.Errorf("image %s: %w", short(img.ID), ErrNotAnIndex)
	}
	data, err := s.lib.ImageBigData(img.ID, cstorage.ImageDigestBigDataKey)
	if err != nil {
		return nil, fmt.Errorf("read index %s: %w", short(img.ID), err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("read index %s: %w", short(img.ID), err)
	}
	where, err := s.instanceIDs(img.ID)
	if err != nil {
		return nil, err
	}
	list := make([]Instance, len(index.Manifests))
	for i, desc := range index.Manifests {
		list[i] = Instance{Desc: desc}
		if one, err := s.lib.Image(where[desc.Digest]); err == nil {
			list[i].ImageID = one.ID
		}
	}
	return list, nil
}

// instanceIDs returns the IDs of the images of an index. Images in other stores are left
// out.
func (s *Store) instanceIDs(id string) (map[digest.Digest]string, error) {
	data, err := s.lib.ImageBigData(id, instancesKey)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil //nolint:nilnil // an index without images
	}
	if err != nil {
		return nil, fmt.Errorf("read images of index %s: %w", short(id), err)
	}
	var names map[digest.Digest]string
	if err := json.Unmarshal(data, &names); err != nil {
		return nil, fmt.Errorf("read images of index %s: %w", short(id), err)
	}
	ids := map[digest.Digest]string{}
	for dgst, name := range names {
		local, ok := strings.CutPrefix(name, transport.Transport.Name()+":")
		if !ok {
			continue
		}
		ref, err := transport.Transport.ParseReference(local)
		if err != nil {
			continue
		}
		if _, img, err := transport.ResolveReference(ref); err == nil {
			ids[dgst] = img.ID
		}
	}
	return ids, nil
}

// ImageFor returns the image of that name or ID for one platform. If the name stands for
// an index that was built here, it returns the best image of the index. If the image was
// pulled from an index, it may return another image that was pulled from the same index.
// If there is no such image, it returns the image itself, for any platform. ImageFor
// returns ErrImageUnknown if an index has no image for the platform.
func (s *Store) ImageFor(nameOrID string, platform platforms.MatchComparer) (Image, error) {
	img, err := s.libraryImage(nameOrID)
	if err != nil {
		return Image{}, err
	}
	if isIndex(img) {
		if img, err = s.best(img.ID, platform); err != nil {
			return Image{}, err
		}
	} else if !s.isFor(img, platform) {
		if other := s.sibling(img, platform); other != nil {
			img = other
		}
	}
	return s.imageOf(img), nil
}

func (s *Store) isFor(img *cstorage.Image, platform platforms.Matcher) bool {
	config, err := s.ImageConfig(img.ID)
	if err != nil {
		return false
	}
	var of ocispec.Platform
	return json.Unmarshal(config, &of) == nil && platform.Match(platforms.Normalize(of))
}

// sibling finds an image for a platform that was pulled from the same index as img. The
// store keeps the index with both images.
func (s *Store) sibling(img *cstorage.Image, platform platforms.Matcher) *cstorage.Image {
	for key, dgst := range img.BigDataDigests {
		if !strings.HasPrefix(key, cstorage.ImageDigestManifestBigDataNamePrefix+"-") {
			continue
		}
		data, err := s.lib.ImageBigData(img.ID, key)
		if err != nil || !manifest.MIMETypeIsMultiImage(manifest.GuessMIMEType(data)) {
			continue
		}
		same, err := s.lib.ImagesByDigest(dgst)
		if err != nil {
			continue
		}
		for _, other := range same {
			if other.ID != img.ID && !isIndex(other) && s.isFor(other, platform) {
				return other
			}
		}
	}
	return nil
}

// best returns the image of an index that fits a platform best.
func (s *Store) best(id string, platform platforms.MatchComparer) (*cstorage.Image, error) {
	list, err := s.Instances(id)
	if err != nil {
		return nil, err
	}
	var chosen *Instance
	for i := range list {
		in := &list[i]
		if in.ImageID == "" || in.Desc.Platform == nil || !platform.Match(*in.Desc.Platform) {
			continue
		}
		if chosen == nil || platform.Less(*in.Desc.Platform, *chosen.Desc.Platform) {
			chosen = in
		}
	}
	if chosen == nil {
		return nil, fmt.Errorf("index %s has no image for the platform: %w", short(id), ErrImageUnknown)
	}
	return s.lib.Image(chosen.ImageID)
}

// representative returns the image of an index for this machine, or the first image that
// is in the store.
func (s *Store) representative(id string) (*cstorage.Image, error) {
	if img, err := s.best(id, platforms.Default()); err == nil {
		return img, nil
	}
	list, err := s.Instances(id)
	if err != nil {
		return nil, err
	}
	for _, in := range list {
		if in.ImageID != "" {
			return s.lib.Image(in.ImageID)
		}
	}
	return nil, fmt.Errorf("index %s: none of its images is in the store: %w", short(id), ErrImageUnknown)
}

func isIndex(img *cstorage.Image) bool { return slices.Contains(img.BigDataNames, instancesKey) }

// members returns the IDs of all images that belong to an index other than except.
func (s *Store) members(all []cstorage.Image, except string) map[string]bool {
	found := map[string]bool{}
	for i := range all {
		if all[i].ID == except || !isIndex(&all[i]) {
			continue
		}
		ids, err := s.instanceIDs(all[i].ID)
		if err != nil {
			s.logger.Warn("an index in the store cannot be read", "image", all[i].ID, "error", err)
		}
		for id := range maps.Values(ids) {
			found[id] = true
		}
	}
	return found
}
