package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// Push writes src to dest, a complete name, and returns the descriptor of the manifest or
// index at the registry. If dest has no tag, the tag is latest.
//
// Layers are streamed out of the store and compressed on the way, without copies. Blobs
// that the registry has are mounted from another repository or skipped. If a layer was
// compressed before, its digest is known, and it is compressed again only if the registry
// does not have it. Docker's schema 2 does not support zstd, so with Zstd the manifest is
// always an OCI manifest. If a registry refuses the media types of OCI, Push uses those
// of docker instead.
//
// Errors wrap ErrUnauthorized or ErrNotFound if the registry says so.
func (c *Client) Push(ctx context.Context, src Source, dest string, opts PushOptions) (ocispec.Descriptor, error) {
	named, err := parseName(dest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, tag := range opts.Tags {
		if _, err := imgref.WithTag(imgref.TrimNamed(named), tag); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("tag %q: %w", tag, err)
		}
	}
	if c.store == nil {
		return ocispec.Descriptor{}, errNoStore
	}
	if err := src.check(); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("push %s: %w", named, err)
	}
	form, err := formOf(opts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if form.Type == blobs.Zstd {
		src = src.asOCI()
	}
	up, err := c.Upload(ctx, dest, UploadOptions{})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	p := &pusher{client: c, to: up, form: form, progress: opts.Progress}
	data, err := p.image(ctx, src)
	if _, refused := errors.AsType[types.ManifestTypeRejectedError](err); refused && !src.Docker && form.Type != blobs.Zstd {
		// The registry does not support OCI manifests. It has the blobs already.
		src.Docker = true
		data, err = p.image(ctx, src)
	}
	if err := errors.Join(err, up.Close()); err != nil {
		return ocispec.Descriptor{}, err
	}
	for _, tag := range opts.Tags {
		if err := c.tag(ctx, imgref.TrimNamed(named).String()+":"+tag, data); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	return ocispec.Descriptor{MediaType: manifest.GuessMIMEType(data), Digest: digest.FromBytes(data), Size: int64(len(data))}, nil
}

// tag adds a name to a manifest. The registry must have its blobs already.
func (c *Client) tag(ctx context.Context, name string, data []byte) error {
	up, err := c.Upload(ctx, name, UploadOptions{})
	if err != nil {
		return err
	}
	return errors.Join(up.Manifest(ctx, data), up.Close())
}

func formOf(opts PushOptions) (blobs.Form, error) {
	form := blobs.Form{Type: opts.Compression, Level: opts.Level, Family: true}
	switch form.Type {
	case "":
		form.Type = blobs.Gzip
	case Gzip, Zstd, Uncompressed:
	default:
		return form, fmt.Errorf("compression %q is not known: use gzip, zstd or uncompressed", opts.Compression)
	}
	return form, form.Check()
}

// pusher writes images to a registry.
type pusher struct {
	client   *Client
	to       *Upload
	form     blobs.Form
	progress Progress
}

// image writes an image, or an index and its images. It returns the manifest or the
// index.
func (p *pusher) image(ctx context.Context, src Source) ([]byte, error) {
	if src.Index == nil {
		data, _, err := p.one(ctx, src)
		if err != nil {
			return nil, err
		}
		return data, p.to.Manifest(ctx, data)
	}
	var manifests [][]byte
	var kinds []string
	for _, one := range src.Images {
		one.Docker = src.Docker
		data, kind, err := p.one(ctx, one)
		if err == nil {
			err = p.to.Instance(ctx, data)
		}
		if err != nil {
			return nil, err
		}
		manifests, kinds = append(manifests, data), append(kinds, kind)
	}
	data, _, err := src.index(manifests, kinds, p.form)
	if err != nil {
		return nil, err
	}
	return data, p.to.Manifest(ctx, data)
}

// one writes the layers and the config of an image and returns its manifest and the media
// type of the manifest.
func (p *pusher) one(ctx context.Context, src Source) ([]byte, string, error) {
	made, err := deliver(ctx, src.Layers, p.to, p.layer)
	if err != nil {
		return nil, "", err
	}
	config := ocispec.Descriptor{Digest: digest.FromBytes(src.Config), Size: int64(len(src.Config))}
	has, err := p.to.Has(ctx, config)
	if err == nil && !has {
		_, _, err = p.to.Put(ctx, config, bytes.NewReader(src.Config))
	}
	if err != nil {
		return nil, "", err
	}
	return src.manifest(made)
}

// layer writes a layer. If the layer was pulled as a blob of the requested compression,
// and the registry has that blob, layer uses it. Otherwise the layer is delivered by a
// Maker, which compresses it if the registry has no blob of it.
func (p *pusher) layer(ctx context.Context, l storage.Layer) (blobs.Layer, error) {
	if known, ok := p.client.memory().Published(l.DiffID); ok && p.form.Level == nil && known.Desc.MediaType == p.form.MediaType() {
		if has, err := p.to.Has(ctx, known.Desc); err == nil && has {
			return known, nil
		}
	}
	return p.client.Maker().Deliver(ctx, blobs.Wanted{Layer: l, Form: p.form, Progress: p.progress}, p.to)
}

// deliver writes layers with one, at most to.Parallel at the same time. It writes layers
// with the same content only once.
func deliver(ctx context.Context, layers []storage.Layer, to blobs.Sink, one func(context.Context, storage.Layer) (blobs.Layer, error)) ([]blobs.Layer, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(to.Parallel())
	made := make([]blobs.Layer, len(layers))
	first := map[digest.Digest]int{}
	for i, l := range layers {
		if _, again := first[l.DiffID]; again {
			continue
		}
		first[l.DiffID] = i
		group.Go(func() (err error) {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			made[i], err = one(ctx, l)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, l := range layers {
		made[i] = made[first[l.DiffID]]
	}
	return made, nil
}
