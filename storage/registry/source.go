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

// SourceOf makes a Source of an image of the store, given by name or ID.
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

// indexSource makes a Source of an index, all of whose images must be there.
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

// check compares the layers with what the config says they are.
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

// annotationZstd is how podman, buildah and skopeo prefer an image of an index for
// its compression (go.podman.io/image/v5, internal/manifest/oci_index.go).
const annotationZstd = "io.github.containers.compression.zstd"

// index lists the manifests of all images, which have just been written in a form.
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
	// As the other tools of this family write one whose images were compressed.
	list, err := manifest.ListFromBlob(data, index.MediaType)
	if err == nil {
		data, err = list.Serialize()
	}
	if err != nil {
		return nil, "", fmt.Errorf("write index: %w", err)
	}
	return data, index.MediaType, nil
}

// asOCI is the same with OCI's media types. Docker's manifests have no annotations.
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

// dockerLayerTypes are docker's names for OCI's.
var dockerLayerTypes = map[string]string{
	ocispec.MediaTypeImageLayer:     manifest.DockerV2SchemaLayerMediaTypeUncompressed,
	ocispec.MediaTypeImageLayerGzip: manifest.DockerV2Schema2LayerMediaType,
}

// manifest describes the image with its layers as they have been written.
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

// likeDocker writes a manifest with its fields in the order that docker and the
// other tools of this family have them: the digest is known to people.
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

// cancelReader ends when ctx does.
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
