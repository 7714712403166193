package export

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/storage/blobs"
)

// Media types of docker's manifests (distribution,
// docs/content/spec/manifest-v2-2.md).
const (
	mediaTypeManifest2 = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeList2     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeConfig2   = "application/vnd.docker.container.image.v1+json"
)

// Image is an image in its final form: the content of its manifests, configs and index is
// fixed.
type Image struct {
	// Root is the manifest of a single image, or the index of several images.
	Root ocispec.Descriptor
	// Index is the content of the index, or nil for a single image.
	Index []byte
	// Manifests has one entry for each platform.
	Manifests []Manifest
}

// Manifest is the image for one platform.
type Manifest struct {
	Platform Platform
	Desc     ocispec.Descriptor
	Data     []byte
	Config   []byte
	// ConfigType is the media type of Config.
	ConfigType string
	Layers     []Layer
	// Created is the time in the config. If there is none, it is the SOURCE_DATE_EPOCH of
	// the output, or nil.
	Created *time.Time
}

func (m Manifest) config() Part { return newPart(m.ConfigType, m.Config) }

// ConfigDigest returns the digest of the config, which is the ID of a single image. It
// returns "" for an index.
func (img *Image) ConfigDigest() digest.Digest {
	if img.Index != nil {
		return ""
	}
	return digest.FromBytes(img.Manifests[0].Config)
}

// Created returns the creation time of the newest image, or nil if no time is known.
func (img *Image) Created() (last *time.Time) {
	for _, m := range img.Manifests {
		if m.Created != nil && (last == nil || m.Created.After(*last)) {
			last = m.Created
		}
	}
	return last
}

// Part is a config, a manifest or an index.
type Part struct {
	Desc ocispec.Descriptor
	Data []byte
}

func newPart(mediaType string, data []byte) Part {
	return Part{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}
}

// Parts returns the configs, the manifests and the index. The last part is the root.
func (img *Image) Parts() []Part {
	var parts []Part
	for _, m := range img.Manifests {
		parts = append(parts, m.config(), Part{m.Desc, m.Data})
	}
	if img.Index != nil {
		parts = append(parts, Part{img.Root, img.Index})
	}
	return parts
}

// WriteConfigs writes the configs to a sink.
func (img *Image) WriteConfigs(ctx context.Context, to blobs.Sink) error {
	for _, m := range img.Manifests {
		if err := m.config().write(ctx, to); err != nil {
			return err
		}
	}
	return nil
}

func (p Part) write(ctx context.Context, to blobs.Sink) error {
	return put(ctx, to, p.Desc, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(p.Data)), nil })
}

// Check returns an error if the image cannot have the form that opts ask for. It does not
// write anything.
func Check(b Build, opts ImageOptions) error { return opts.Annotations.check(b, opts.Docker) }

// Compose writes the layers of an image to a sink and returns the image with its configs,
// manifests and index. These must be written afterwards, see Image.Parts.
func Compose(ctx context.Context, b Build, opts ImageOptions, layers *Layers, to blobs.Sink, progress blobs.Progress) (*Image, error) {
	if err := Check(b, opts); err != nil {
		return nil, err
	}
	img := &Image{}
	forms, err := makeLayers(ctx, b, opts, layers, to, progress)
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

// makeLayers writes the layers of all platforms to a sink, at most to.Parallel at the
// same time.
func makeLayers(ctx context.Context, b Build, opts ImageOptions, layers *Layers, to blobs.Sink, progress blobs.Progress) ([][]Layer, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(to.Parallel())
	var shared together
	out := make([][]Layer, len(b.Platforms))
	for i, p := range b.Platforms {
		base, err := readBase(p)
		if err != nil {
			return nil, errors.Join(err, group.Wait())
		}
		out[i] = make([]Layer, len(p.Layers))
		ours := false
		for n, l := range p.Layers {
			ours = ours || n >= len(base.RootFS.DiffIDs) || base.RootFS.DiffIDs[n] != l.DiffID
			w := wantedLayer{
				Layer: l, Compression: opts.Compression, published: !ours && !opts.Compression.Force, complete: opts.Complete,
			}
			if opts.RewriteTimestamp && ours {
				w.epoch = opts.Epoch.of(p)
			}
			group.Go(func() (err error) {
				if err := context.Cause(ctx); err != nil {
					return err
				}
				out[i][n], err = shared.once(w, func() (Layer, error) { return layers.make(ctx, w, to, progress) })
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
		desc := l.Desc
		if opts.Docker {
			desc.MediaType, desc.Annotations = dockerLayerTypes[desc.MediaType], nil
		}
		m.Layers = append(m.Layers, desc)
	}
	m.Config = newPart(configType, config).Desc
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return Manifest{}, fmt.Errorf("write manifest: %w", err)
	}
	desc := newPart(m.MediaType, data).Desc
	desc.Annotations = opts.Annotations.of(exptypes.AnnotationManifestDescriptor, of)
	desc.Platform = &p.Platform
	out := Manifest{Platform: p, Desc: desc, Data: data, Config: config, ConfigType: configType, Layers: layers}
	var made image
	if err := json.Unmarshal(config, &made); err != nil {
		return out, fmt.Errorf("read image config: %w", err)
	}
	if out.Created = made.Created; out.Created == nil {
		out.Created = opts.Epoch.of(p)
	}
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
	img.Root = newPart(index.MediaType, data).Desc
	img.Root.Annotations = opts.Annotations.of(exptypes.AnnotationIndexDescriptor, nil)
	return nil
}
