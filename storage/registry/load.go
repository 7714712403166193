package registry

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/pkg/compression"

	"github.com/shale-build/shale/storage"
)

// annotationImageName is the annotation in which containerd and docker keep the name of
// an image in a layout.
const annotationImageName = "io.containerd.image.name"

// Load reads an OCI or docker archive, compressed or not, into the store. It returns the
// images of the archive, with only those names that they have in the archive. If it
// fails, it returns the images that it has loaded so far. The archive is first copied to
// a temporary file next to the store.
func (c *Client) Load(ctx context.Context, r io.Reader, opts PullOptions) ([]storage.Image, error) {
	dir, remove, err := c.tempDir(ctx)
	if err != nil {
		return nil, err
	}
	defer remove()
	images, err := c.load(ctx, r, dir, opts)
	if err != nil {
		return images, fmt.Errorf("load images: %w", err)
	}
	return images, nil
}

func (c *Client) load(ctx context.Context, r io.Reader, dir string, opts PullOptions) ([]storage.Image, error) {
	file := filepath.Join(dir, "archive.tar")
	if err := spool(ctx, r, file); err != nil {
		return nil, err
	}
	docker, oci, err := contents(ctx, file)
	switch {
	case err != nil:
		return nil, err
	case docker:
		// If an archive is of both kinds, use manifest.json: it always has the names.
		return c.loadDocker(ctx, file, opts)
	case !oci:
		return nil, errors.New("not an image archive: it has neither manifest.json nor index.json")
	}
	tree := filepath.Join(dir, "layout")
	if err := unpackLayout(ctx, file, tree); err != nil {
		return nil, err
	}
	if err := os.Remove(file); err != nil {
		return nil, err
	}
	return c.loadLayout(ctx, tree, opts)
}

// spool writes the archive to a file, uncompressed, so that it can be read in any order.
func spool(ctx context.Context, r io.Reader, file string) (err error) {
	plain, _, err := compression.AutoDecompress(&cancelReader{ReadCloser: io.NopCloser(r), ctx: ctx})
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, plain)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	return nil
}

// contents reports whether a file is a docker archive and whether it is an OCI archive.
// It may be both.
func contents(ctx context.Context, file string) (docker, oci bool, err error) {
	err = eachEntry(ctx, file, func(h *tar.Header, _ io.Reader) error {
		switch path.Clean(h.Name) {
		case "manifest.json":
			docker = true
		case ocispec.ImageIndexFile:
			oci = true
		}
		return nil
	})
	return docker, oci, err
}

func eachEntry(ctx context.Context, file string, visit func(*tar.Header, io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	tr := tar.NewReader(f)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		if err := visit(h, tr); err != nil {
			return err
		}
	}
}

// unpackLayout unpacks only the regular files of a layout, because the archive is not
// trusted.
func unpackLayout(ctx context.Context, file, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return eachEntry(ctx, file, func(h *tar.Header, r io.Reader) error {
		name := path.Clean(h.Name)
		if h.Typeflag != tar.TypeReg || !isLayoutFile(name) {
			return nil
		}
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return fmt.Errorf("unpack archive: %w", err)
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("unpack archive: %w", err)
		}
		_, err = io.Copy(f, &cancelReader{ReadCloser: io.NopCloser(r), ctx: ctx})
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("unpack archive: %w", err)
		}
		return nil
	})
}

func isLayoutFile(name string) bool {
	return name == ocispec.ImageIndexFile || name == ocispec.ImageLayoutFile ||
		strings.HasPrefix(name, ocispec.ImageBlobsDir+"/") && filepath.IsLocal(name)
}

func (c *Client) loadDocker(ctx context.Context, file string, opts PullOptions) (_ []storage.Image, err error) {
	archive, err := dockerarchive.NewReader(c.system(), file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	list, err := archive.List()
	if err != nil {
		return nil, err
	}
	var images []storage.Image
	for _, refs := range list {
		if err := context.Cause(ctx); err != nil {
			return images, err
		}
		var names []imgref.Named
		for _, ref := range refs {
			if named := ref.DockerReference(); named != nil {
				names = append(names, named)
			}
		}
		img, err := c.bring(ctx, refs[0], "", names, opts)
		if err != nil {
			return images, err
		}
		images = append(images, namedOnly(img, names))
	}
	return images, nil
}

func (c *Client) loadLayout(ctx context.Context, dir string, opts PullOptions) ([]storage.Image, error) {
	entries, err := layout.List(dir)
	if err != nil {
		return nil, err
	}
	var images []storage.Image
	for i, e := range entries {
		if err := context.Cause(ctx); err != nil {
			return images, err
		}
		ref, err := layout.NewIndexReference(dir, i)
		if err != nil {
			return images, err
		}
		names := layoutNames(e.ManifestDescriptor.Annotations)
		img, err := c.bring(ctx, ref, e.ManifestDescriptor.Digest, names, opts)
		if err != nil {
			return images, err
		}
		images = append(images, namedOnly(img, names))
	}
	return images, nil
}

// namedOnly returns img with exactly these names.
func namedOnly(img storage.Image, names []imgref.Named) storage.Image {
	img.Names = nil
	for _, name := range names {
		img.Names = append(img.Names, name.String())
	}
	return img
}

// layoutNames returns the image name in the annotations of an index entry. A value
// without ":" or "/" is only a tag: the repository is unknown, so there is no name. A
// name without a registry gets the registry localhost.
func layoutNames(annotations map[string]string) []imgref.Named {
	name := annotations[annotationImageName]
	if name == "" {
		name = annotations[ocispec.AnnotationRefName]
	}
	if !strings.ContainsAny(name, ":/") {
		return nil
	}
	if named, err := imgref.ParseNamed(name); err == nil {
		return []imgref.Named{imgref.TagNameOnly(named)}
	}
	if named, err := imgref.ParseNamed("localhost/" + name); err == nil {
		return []imgref.Named{imgref.TagNameOnly(named)}
	}
	return nil
}
