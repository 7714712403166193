package export

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Media types of docker's manifests (distribution,
// docs/content/spec/manifest-v2-2.md).
const (
	mediaTypeManifest2 = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeList2     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeConfig2   = "application/vnd.docker.container.image.v1+json"
)

// Image is an image of which every byte is decided.
type Image struct {
	// Root is the manifest of a single image or the index of several.
	Root ocispec.Descriptor
	// Index is the index itself, nil for a single image.
	Index []byte
	// Manifests has one entry per platform.
	Manifests []Manifest
	blobs     map[digest.Digest]Blob
	order     []digest.Digest
}

// Manifest is the image of one platform.
type Manifest struct {
	Platform Platform
	Desc     ocispec.Descriptor
	Data     []byte
	Config   []byte
	Layers   []Layer
	// Created is the time in the config, nil for none.
	Created *time.Time
}

// ConfigDigest is the ID of a single image, "" for an index.
func (img *Image) ConfigDigest() digest.Digest {
	if img.Index != nil {
		return ""
	}
	return digest.FromBytes(img.Manifests[0].Config)
}

// Created is when the newest of the images was made.
func (img *Image) Created() (last *time.Time) {
	for _, m := range img.Manifests {
		if m.Created != nil && (last == nil || m.Created.After(*last)) {
			last = m.Created
		}
	}
	return last
}

// Blobs are all parts of the image, each once, the root last.
func (img *Image) Blobs() []Blob {
	list := make([]Blob, len(img.order))
	for i, d := range img.order {
		list[i] = img.blobs[d]
	}
	return list
}

func (img *Image) add(b Blob) {
	if _, ok := img.blobs[b.Desc.Digest]; !ok {
		img.blobs[b.Desc.Digest] = b
		img.order = append(img.order, b.Desc.Digest)
	}
}

func (img *Image) addBytes(mediaType string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	img.add(Blob{Desc: desc, open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
	return desc
}

// Compose decides on the form of every part of an image.
func Compose(ctx context.Context, b Build, opts ImageOptions, layers *Layers) (*Image, error) {
	if err := opts.Annotations.check(b, opts.Docker); err != nil {
		return nil, err
	}
	img := &Image{blobs: map[digest.Digest]Blob{}}
	forms, err := makeLayers(ctx, b, opts, layers)
	if err != nil {
		return nil, err
	}
	for i, p := range b.Platforms {
		m, err := img.manifest(p, forms[i], b.Multi, opts)
		if err != nil {
			return nil, err
		}
		img.Manifests = append(img.Manifests, m)
	}
	if !b.Multi {
		img.Root = img.Manifests[0].Desc
		return img, nil
	}
	return img, img.index(opts)
}

// makeLayers compresses the layers of all platforms side by side.
func makeLayers(ctx context.Context, b Build, opts ImageOptions, layers *Layers) ([][]Layer, error) {
	group, ctx2 := errgroup.WithContext(ctx)
	// Each compresses on several processors by itself.
	group.SetLimit(3)
	out := make([][]Layer, len(b.Platforms))
	for i, p := range b.Platforms {
		base, err := readBase(p)
		if err != nil {
			return nil, err
		}
		out[i] = make([]Layer, len(p.Layers))
		ours := false
		for n, l := range p.Layers {
			ours = ours || n >= len(base.RootFS.DiffIDs) || base.RootFS.DiffIDs[n] != l.DiffID
			ours := ours
			var epoch *time.Time
			if opts.RewriteTimestamp && ours {
				epoch = opts.Epoch.of(p)
			}
			group.Go(func() (err error) {
				if err := context.Cause(ctx2); err != nil {
					return err
				}
				out[i][n], err = layers.make(ctx, l, opts.Compression, epoch, !ours && !opts.Compression.Force)
				if err == nil && opts.Complete && !ours && !out[i][n].have() {
					out[i][n], err = layers.make(ctx, l, opts.Compression, epoch, false)
				}
				return err
			})
		}
	}
	return out, group.Wait()
}

func (img *Image) manifest(p Platform, layers []Layer, multi bool, opts ImageOptions) (Manifest, error) {
	diffIDs := make([]digest.Digest, len(layers))
	for i, l := range layers {
		diffIDs[i] = l.DiffID
	}
	config, err := finishConfig(p, diffIDs, opts.Epoch.of(p))
	if err != nil {
		return Manifest{}, err
	}
	var of *ocispec.Platform
	if multi {
		of = &p.Platform
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Layers: []ocispec.Descriptor{}, Annotations: opts.Annotations.of(exptypes.AnnotationManifest, of),
	}
	configType := ocispec.MediaTypeImageConfig
	if opts.Docker {
		m.MediaType, configType = mediaTypeManifest2, mediaTypeConfig2
	}
	for _, l := range layers {
		img.add(l.Blob)
		desc := l.Desc
		if opts.Docker {
			desc.MediaType, desc.Annotations = dockerLayerTypes[desc.MediaType], nil
		}
		m.Layers = append(m.Layers, desc)
	}
	m.Config = img.addBytes(configType, config)
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return Manifest{}, fmt.Errorf("write manifest: %w", err)
	}
	desc := img.addBytes(m.MediaType, data)
	desc.Annotations = opts.Annotations.of(exptypes.AnnotationManifestDescriptor, of)
	desc.Platform = &p.Platform
	out := Manifest{Platform: p, Desc: desc, Data: data, Config: config, Layers: layers}
	var made image
	if err := json.Unmarshal(config, &made); err != nil {
		return out, fmt.Errorf("read image config: %w", err)
	}
	out.Created = made.Created
	return out, nil
}

func (img *Image) index(opts ImageOptions) error {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Annotations: opts.Annotations.of(exptypes.AnnotationIndex, nil),
	}
	if opts.Docker {
		index.MediaType = mediaTypeList2
	}
	for _, m := range img.Manifests {
		index.Manifests = append(index.Manifests, m.Desc)
	}
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	img.Index = data
	img.Root = img.addBytes(index.MediaType, data)
	img.Root.Annotations = opts.Annotations.of(exptypes.AnnotationIndexDescriptor, nil)
	return nil
}
