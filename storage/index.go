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
	"go.podman.io/image/v5/transports/alltransports"
	cstorage "go.podman.io/storage"
)

// Big data of an index beside the index itself, as podman and buildah have it
// (containers/common, libimage/manifests): where the image of each manifest is,
// and what there is that is no image.
const (
	instancesKey = "instances.json"
	artifactsKey = "artifacts.json"
)

// IndexSpec is an index to be recorded.
type IndexSpec struct {
	// Index is stored as it is.
	Index []byte
	// Images tells the ID of the image of each manifest in it.
	Images map[digest.Digest]string
	// Names are complete names; they move here from whatever image has them.
	Names []string
}

// Instance is one image of an index.
type Instance struct {
	// Desc is the index's entry.
	Desc ocispec.Descriptor
	// ImageID is the image in the store, "" when it is not there.
	ImageID string
}

// CreateIndex records an index of images of the store as podman's manifest
// lists are. Its ID is its digest.
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

// Instances lists the images of an index, in its order. It returns
// ErrNotAnIndex for an image.
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

// instanceIDs reads where the images of an index are. Those in another store
// are nowhere.
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
		ref, err := alltransports.ParseImageName(name)
		if err != nil {
			continue
		}
		if _, img, err := transport.ResolveReference(ref); err == nil {
			ids[dgst] = img.ID
		}
	}
	return ids, nil
}

// ImageFor is Image, but of what is one name for several platforms it finds the
// image for one of them: in an index that was built here, or among the images
// that were pulled from one index. An image that is alone under its name is
// returned whatever it is for.
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

// sibling finds an image for a platform that was pulled from the same index as
// img. The index is kept with both.
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

// best returns the image of an index that suits a platform most.
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

// representative is the image of an index that is for this machine, or the
// first that is there.
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

// members are the IDs of all images that belong to an index other than except.
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
