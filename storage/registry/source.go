package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"

	"github.com/shale-build/shale/storage"
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
	var config struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(s.Config, &config); err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if len(config.RootFS.DiffIDs) != len(s.Layers) {
		return fmt.Errorf("image has %d layers and its config names %d", len(s.Layers), len(config.RootFS.DiffIDs))
	}
	for i, l := range s.Layers {
		if l.DiffID != config.RootFS.DiffIDs[i] {
			return fmt.Errorf("layer %d of the image is %s and its config names %s", i, l.DiffID, config.RootFS.DiffIDs[i])
		}
	}
	return nil
}

// index lists the manifests of all images, which have just been written.
func (s Source) index(manifests [][]byte, types []string) ([]byte, string, error) {
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
	}
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return nil, "", fmt.Errorf("write index: %w", err)
	}
	return data, index.MediaType, nil
}

// manifest describes the image with uncompressed layers.
func (s Source) manifest() ([]byte, string, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(s.Config), Size: int64(len(s.Config)),
		},
		Layers:      []ocispec.Descriptor{},
		Annotations: s.Annotations,
	}
	layerType := ocispec.MediaTypeImageLayer
	if s.Docker {
		m.MediaType, m.Config.MediaType, m.Annotations = manifest.DockerV2Schema2MediaType, manifest.DockerV2Schema2ConfigMediaType, nil
		layerType = manifest.DockerV2SchemaLayerMediaTypeUncompressed
	}
	for _, l := range s.Layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: layerType, Digest: l.DiffID, Size: l.Size})
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, "", fmt.Errorf("write manifest: %w", err)
	}
	return data, m.MediaType, nil
}

// openDiff is what a source needs of a store.
type openDiff func(id string) (io.ReadCloser, error)

// sourceRef lets go.podman.io/image read a Source.
type sourceRef struct {
	src       Source
	open      openDiff
	manifest  []byte
	mediaType string
	layers    map[digest.Digest]storage.Layer
	configs   map[digest.Digest][]byte
	// instances are the images of an index by the digest of their manifest.
	instances map[digest.Digest]*sourceRef
}

var (
	_ types.ImageReference = (*sourceRef)(nil)
	_ types.ImageTransport = sourceTransport{}
	_ types.ImageSource    = (*sourceReader)(nil)
)

func (c *Client) reference(src Source) (*sourceRef, error) {
	if c.store == nil {
		return nil, errNoStore
	}
	if err := src.check(); err != nil {
		return nil, err
	}
	if src.Index != nil {
		return c.indexReference(src)
	}
	data, mediaType, err := src.manifest()
	if err != nil {
		return nil, err
	}
	r := &sourceRef{
		src: src, open: c.store.OpenDiff, manifest: data, mediaType: mediaType,
		layers: map[digest.Digest]storage.Layer{}, configs: map[digest.Digest][]byte{digest.FromBytes(src.Config): src.Config},
	}
	for _, l := range src.Layers {
		r.layers[l.DiffID] = l
	}
	return r, nil
}

func (c *Client) indexReference(src Source) (*sourceRef, error) {
	r := &sourceRef{
		src: src, open: c.store.OpenDiff, layers: map[digest.Digest]storage.Layer{},
		configs: map[digest.Digest][]byte{}, instances: map[digest.Digest]*sourceRef{},
	}
	var manifests [][]byte
	var types []string
	for _, one := range src.Images {
		one.Docker = src.Docker
		ref, err := c.reference(one)
		if err != nil {
			return nil, err
		}
		maps.Copy(r.layers, ref.layers)
		maps.Copy(r.configs, ref.configs)
		r.instances[digest.FromBytes(ref.manifest)] = ref
		manifests, types = append(manifests, ref.manifest), append(types, ref.mediaType)
	}
	var err error
	r.manifest, r.mediaType, err = src.index(manifests, types)
	return r, err
}

var errReadOnly = errors.New("a source cannot be written to")

func (r *sourceRef) Transport() types.ImageTransport         { return sourceTransport{} }
func (r *sourceRef) StringWithinTransport() string           { return digest.FromBytes(r.manifest).String() }
func (r *sourceRef) DockerReference() imgref.Named           { return nil }
func (r *sourceRef) PolicyConfigurationIdentity() string     { return "" }
func (r *sourceRef) PolicyConfigurationNamespaces() []string { return nil }

func (r *sourceRef) NewImage(ctx context.Context, sys *types.SystemContext) (types.ImageCloser, error) {
	return image.FromSource(ctx, sys, &sourceReader{ref: r})
}

func (r *sourceRef) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return &sourceReader{ref: r}, nil
}

func (r *sourceRef) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return nil, errReadOnly
}

func (r *sourceRef) DeleteImage(context.Context, *types.SystemContext) error { return errReadOnly }

type sourceTransport struct{}

func (sourceTransport) Name() string { return "shale" }

func (sourceTransport) ParseReference(string) (types.ImageReference, error) {
	return nil, errors.New("a source has no name")
}

func (sourceTransport) ValidatePolicyConfigurationScope(string) error { return nil }

// sourceReader streams the layers out of the store as they are asked for.
type sourceReader struct {
	ref *sourceRef
}

func (s *sourceReader) Reference() types.ImageReference { return s.ref }
func (s *sourceReader) Close() error                    { return nil }
func (s *sourceReader) HasThreadSafeGetBlob() bool      { return true }

func (s *sourceReader) GetManifest(_ context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance == nil {
		return s.ref.manifest, s.ref.mediaType, nil
	}
	one, ok := s.ref.instances[*instance]
	if !ok {
		return nil, "", fmt.Errorf("index has no manifest %s", *instance)
	}
	return one.manifest, one.mediaType, nil
}

func (s *sourceReader) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, nil
}

func (s *sourceReader) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}

func (s *sourceReader) GetBlob(ctx context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if config, ok := s.ref.configs[info.Digest]; ok {
		return io.NopCloser(bytes.NewReader(config)), int64(len(config)), nil
	}
	l, ok := s.ref.layers[info.Digest]
	if !ok {
		return nil, 0, fmt.Errorf("image has no blob %s", info.Digest)
	}
	r, err := s.ref.open(l.ID)
	if err != nil {
		return nil, 0, err
	}
	return &cancelReader{ReadCloser: r, ctx: ctx}, l.Size, nil
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
