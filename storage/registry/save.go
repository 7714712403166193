package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	imgref "go.podman.io/image/v5/docker/reference"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// Save writes images of the store, given by name or ID, to w as one archive. An image
// that is given by name has that name in the archive. An image that is given by ID has no
// name.
//
// Layers are streamed. If w is a pipe, each compressed layer is first written to a
// temporary file next to the store, because a tar header has the size of the file that
// follows it. The error wraps storage.ErrImageUnknown if there is no such image.
func (c *Client) Save(ctx context.Context, w io.Writer, images []string, opts SaveOptions) error {
	if c.store == nil {
		return errNoStore
	}
	dir, err := c.store.StateDir("tmp")
	if err != nil {
		return err
	}
	s := &saver{client: c, to: blobs.NewTar(w), progress: opts.Progress}
	s.to.TempDir = dir
	switch opts.Format {
	case "", FormatOCI:
		err = s.saveOCI(ctx, images, opts)
	case FormatDocker:
		err = s.saveDocker(ctx, images)
	default:
		return fmt.Errorf("archive format %q is not known: use oci or docker", opts.Format)
	}
	if err == nil {
		err = s.to.Close()
	}
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// saver writes images to an archive.
type saver struct {
	client   *Client
	to       *blobs.Tar
	progress Progress
}

// saved returns an image and the name that it gets in an archive. The name is nil if the
// image was given by ID.
func (c *Client) saved(name string) (Source, imgref.NamedTagged, error) {
	src, err := c.SourceOf(name)
	if err != nil {
		return Source{}, nil, err
	}
	img, err := c.store.Image(name)
	if err != nil {
		return Source{}, nil, err
	}
	if slices.Contains(img.Names, name) {
		named, err := imgref.ParseNamed(name)
		if tagged, ok := named.(imgref.NamedTagged); err == nil && ok {
			return src, tagged, nil
		}
	}
	return src, nil, nil
}

func (s *saver) saveOCI(ctx context.Context, images []string, opts SaveOptions) error {
	form, err := formOf(PushOptions{Compression: opts.Compression})
	if err != nil {
		return err
	}
	if err := errors.Join(s.to.Directory(ocispec.ImageBlobsDir), s.to.Directory(ocispec.ImageBlobsDir+"/"+digest.Canonical.String())); err != nil {
		return err
	}
	list := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{}}
	for _, name := range images {
		src, tagged, err := s.client.saved(name)
		if err != nil {
			return err
		}
		desc, err := s.image(ctx, src.asOCI(), form)
		if err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		if tagged != nil {
			desc.Annotations = map[string]string{ocispec.AnnotationRefName: tagged.String()}
		}
		list.Manifests = append(list.Manifests, desc)
	}
	index, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	return errors.Join(s.to.File(ocispec.ImageIndexFile, 0o644, index), s.to.File(ocispec.ImageLayoutFile, 0o644, blobs.LayoutFile()))
}

// image writes an image, or an index and its images, and returns the descriptor of the
// manifest or index.
func (s *saver) image(ctx context.Context, src Source, form blobs.Form) (ocispec.Descriptor, error) {
	if src.Index == nil {
		return s.one(ctx, src, form)
	}
	var manifests [][]byte
	var kinds []string
	for _, one := range src.Images {
		_, data, kind, err := s.write(ctx, one, form)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		manifests, kinds = append(manifests, data), append(kinds, kind)
	}
	data, kind, err := src.index(manifests, kinds, form)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, s.to.Blob(desc.Digest, data)
}

func (s *saver) one(ctx context.Context, src Source, form blobs.Form) (ocispec.Descriptor, error) {
	desc, _, _, err := s.write(ctx, src, form)
	return desc, err
}

// write writes an image and returns the descriptor, the content and the media type of its
// manifest.
func (s *saver) write(ctx context.Context, src Source, form blobs.Form) (ocispec.Descriptor, []byte, string, error) {
	made, err := deliver(ctx, src.Layers, s.to, func(ctx context.Context, l storage.Layer) (blobs.Layer, error) {
		return s.client.Maker().Deliver(ctx, blobs.Wanted{Layer: l, Form: form, Progress: s.progress}, s.to)
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, "", err
	}
	if err := s.to.Blob(digest.FromBytes(src.Config), src.Config); err != nil {
		return ocispec.Descriptor{}, nil, "", err
	}
	data, kind, err := src.manifest(made)
	if err != nil {
		return ocispec.Descriptor{}, nil, "", err
	}
	desc := ocispec.Descriptor{MediaType: kind, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return desc, data, kind, s.to.Blob(desc.Digest, data)
}

// forThisMachine returns the image of an index that is for the platform of this machine.
func (c *Client) forThisMachine(index string) (Source, error) {
	img, err := c.store.ImageFor(index, platforms.Default())
	if err != nil {
		return Source{}, fmt.Errorf("a docker archive holds one image (use the format oci for an index): %w", err)
	}
	return c.SourceOf(img.ID)
}

// dockerImage is an entry of the manifest.json of a docker archive
// (docker, image/spec/v1.2.md).
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func dockerLayer(d digest.Digest) string { return d.Encoded() + ".tar" }

func (s *saver) saveDocker(ctx context.Context, images []string) error {
	s.to.BlobName = dockerLayer
	list := []*dockerImage{}
	byConfig := map[string]*dockerImage{}
	for _, name := range images {
		src, tagged, err := s.client.saved(name)
		if err == nil && src.Index != nil {
			// A docker archive cannot contain an index.
			src, err = s.client.forThisMachine(name)
		}
		if err != nil {
			return err
		}
		config := digest.FromBytes(src.Config).Encoded() + ".json"
		img, ok := byConfig[config]
		if !ok {
			if img, err = s.docker(ctx, src, config); err != nil {
				return fmt.Errorf("image %s: %w", name, err)
			}
			byConfig[config] = img
			list = append(list, img)
		}
		if tagged != nil && !slices.Contains(img.RepoTags, tagged.String()) {
			img.RepoTags = append(img.RepoTags, tagged.String())
		}
	}
	data, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("write manifest.json: %w", err)
	}
	return s.to.File("manifest.json", 0o644, data)
}

func (s *saver) docker(ctx context.Context, src Source, config string) (*dockerImage, error) {
	plain := blobs.Form{Type: blobs.Uncompressed}
	made, err := deliver(ctx, src.Layers, s.to, func(ctx context.Context, l storage.Layer) (blobs.Layer, error) {
		return s.client.Maker().Deliver(ctx, blobs.Wanted{Layer: l, Form: plain, Progress: s.progress}, s.to)
	})
	if err != nil {
		return nil, err
	}
	img := &dockerImage{Config: config, RepoTags: []string{}, Layers: []string{}}
	for _, l := range made {
		img.Layers = append(img.Layers, dockerLayer(l.Desc.Digest))
	}
	return img, s.to.File(config, 0o644, src.Config)
}
