package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/manifest"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// SourceOf returns an image or index of the store, given by name or ID, as a Source. All
// images of an index must be in the store. It returns storage.ErrImageUnknown if there is
// no such image, and storage.ErrOtherLayers if its layers do not match its config.
func (c *Client) SourceOf(nameOrID string) (Source, error) {
	if c.store == nil {
		return Source{}, errNoStore
	}
	img, err := c.store.Image(nameOrID)
	if err != nil {
		return Source{}, err
	}
	if img.Index {
		return c.indexSource(img)
	}
	src := Source{}
	if src.Config, err = c.store.ImageConfig(img.ID); err != nil {
		return Source{}, err
	}
	if src.Layers, err = c.store.Chain(img.TopLayer); err != nil {
		return Source{}, fmt.Errorf("image %s: %w", nameOrID, err)
	}
	data, err := c.store.ImageManifest(img.ID)
	if err != nil {
		return Source{}, err
	}
	var m struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return Source{}, fmt.Errorf("read manifest of image %s: %w", nameOrID, err)
	}
	src.Annotations = m.Annotations
	src.Docker = manifest.GuessMIMEType(data) != ocispec.MediaTypeImageManifest
	return src, src.check()
}

// indexSource returns the Source of an index. All its images must be in the store.
func (c *Client) indexSource(img storage.Image) (Source, error) {
	data, err := c.store.ImageManifest(img.ID)
	if err != nil {
		return Source{}, err
	}
	list, err := c.store.Instances(img.ID)
	if err != nil {
		return Source{}, err
	}
	src := Source{Index: data, Docker: manifest.GuessMIMEType(data) != ocispec.MediaTypeImageIndex}
	for _, in := range list {
		if in.ImageID == "" {
			return Source{}, fmt.Errorf("index %s: the image %s is not in the store", img.ID[:12], in.Desc.Digest)
		}
		one, err := c.SourceOf(in.ImageID)
		if err != nil {
			return Source{}, err
		}
		src.Images = append(src.Images, one)
	}
	return src, nil
}

// check returns an error if the layers are not those of the config.
func (s Source) check() error {
	if s.Index != nil {
		for _, one := range s.Images {
			if err := one.check(); err != nil {
				return err
			}
		}
		return nil
	}
	return storage.CheckLayers(s.Config, s.Layers)
}

// annotationZstd marks an entry of an index for an image with zstd layers. podman,
// buildah and skopeo prefer such an entry (go.podman.io/image/v5,
// internal/manifest/oci_index.go).
const annotationZstd = "io.github.containers.compression.zstd"

// index returns the index with the descriptors of manifests, which are the manifests of
// all images as written in a form.
func (s Source) index(manifests [][]byte, types []string, form blobs.Form) ([]byte, string, error) {
	var index ocispec.Index
	if err := json.Unmarshal(s.Index, &index); err != nil {
		return nil, "", fmt.Errorf("read index: %w", err)
	}
	index.MediaType = ocispec.MediaTypeImageIndex
	if s.Docker {
		index.MediaType, index.Annotations = manifest.DockerV2ListMediaType, nil
	}
	for i, data := range manifests {
		m := &index.Manifests[i]
		m.MediaType, m.Digest, m.Size = types[i], digest.FromBytes(data), int64(len(data))
		if form.Type == blobs.Zstd {
			m.Annotations = maps.Clone(m.Annotations)
			if m.Annotations == nil {
				m.Annotations = map[string]string{}
			}
			m.Annotations[annotationZstd] = "true"
		}
	}
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil || form.Type == blobs.Uncompressed {
		return data, index.MediaType, err
	}
	// Serialize an index of compressed images as podman, buildah and skopeo do.
	list, err := manifest.ListFromBlob(data, index.MediaType)
	if err == nil {
		data, err = list.Serialize()
	}
	if err != nil {
		return nil, "", fmt.Errorf("write index: %w", err)
	}
	return data, index.MediaType, nil
}

// asOCI returns s with OCI's media types. It drops the annotations of docker's manifests,
// which must not have any.
func (s Source) asOCI() Source {
	if s.Docker {
		s.Docker, s.Annotations = false, nil
	}
	s.Images = slices.Clone(s.Images)
	for i := range s.Images {
		s.Images[i] = s.Images[i].asOCI()
	}
	return s
}

// dockerLayerTypes maps OCI's media types of layers to those of docker.
var dockerLayerTypes = map[string]string{
	ocispec.MediaTypeImageLayer:     manifest.DockerV2SchemaLayerMediaTypeUncompressed,
	ocispec.MediaTypeImageLayerGzip: manifest.DockerV2Schema2LayerMediaType,
}

// manifest returns the manifest of the image with the layers as they were written, and
// its media type.
func (s Source) manifest(layers []blobs.Layer) ([]byte, string, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(s.Config), Size: int64(len(s.Config)),
		},
		Layers:      []ocispec.Descriptor{},
		Annotations: s.Annotations,
	}
	if s.Docker {
		m.MediaType, m.Config.MediaType, m.Annotations = manifest.DockerV2Schema2MediaType, manifest.DockerV2Schema2ConfigMediaType, nil
	}
	plain := true
	for _, l := range layers {
		desc := l.Desc
		plain = plain && desc.MediaType == ocispec.MediaTypeImageLayer
		if s.Docker {
			desc.MediaType, desc.Annotations = dockerLayerTypes[desc.MediaType], nil
		}
		m.Layers = append(m.Layers, desc)
	}
	data, err := json.Marshal(m)
	if err == nil && s.Docker && !plain {
		data, err = likeDocker(m)
	}
	if err != nil {
		return nil, "", fmt.Errorf("write manifest: %w", err)
	}
	return data, m.MediaType, nil
}

// likeDocker serializes a manifest with its fields in the order of docker, podman,
// buildah and skopeo, so that the image has the digest that users know from these tools.
func likeDocker(m ocispec.Manifest) ([]byte, error) {
	describe := func(d ocispec.Descriptor) manifest.Schema2Descriptor {
		return manifest.Schema2Descriptor{MediaType: d.MediaType, Size: d.Size, Digest: d.Digest}
	}
	layers := make([]manifest.Schema2Descriptor, len(m.Layers))
	for i, l := range m.Layers {
		layers[i] = describe(l)
	}
	return manifest.Schema2FromComponents(describe(m.Config), layers).Serialize()
}

// cancelReader returns the cause of ctx from Read after ctx is done.
type cancelReader struct {
	io.ReadCloser
	ctx context.Context //nolint:containedctx // lives for one blob
}

func (r *cancelReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.ReadCloser.Read(p)
}
