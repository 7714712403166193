package registry

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/platforms"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/oci/layout"
)

// Save writes images of the store, given by name or ID, to w as one archive. An
// image given by name has that name in the archive, one given by ID has none.
// The archive is assembled beside the store first and removed afterwards.
func (c *Client) Save(ctx context.Context, w io.Writer, images []string, opts SaveOptions) error {
	dir, remove, err := c.tempDir()
	if err != nil {
		return err
	}
	defer remove()
	switch opts.Format {
	case "", FormatOCI:
		err = c.saveOCI(ctx, w, dir, images, opts)
	case FormatDocker:
		err = c.saveDocker(ctx, w, dir, images, opts)
	default:
		return fmt.Errorf("archive format %q is not known: use oci or docker", opts.Format)
	}
	if err != nil {
		return fmt.Errorf("save images: %w", err)
	}
	return nil
}

// saved finds an image and the name it is to have in an archive.
func (c *Client) saved(name string) (*sourceRef, imgref.NamedTagged, error) {
	src, err := c.SourceOf(name)
	if err != nil {
		return nil, nil, err
	}
	ref, err := c.reference(src)
	if err != nil {
		return nil, nil, err
	}
	img, err := c.store.Image(name)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range img.Names {
		if n == name {
			named, err := imgref.ParseNamed(n)
			if tagged, ok := named.(imgref.NamedTagged); err == nil && ok {
				return ref, tagged, nil
			}
		}
	}
	return ref, nil, nil
}

func (c *Client) saveOCI(ctx context.Context, w io.Writer, dir string, images []string, opts SaveOptions) error {
	for _, name := range images {
		from, tagged, err := c.saved(name)
		if err != nil {
			return err
		}
		as := ""
		if tagged != nil {
			as = tagged.String()
		}
		to, err := layout.NewReference(dir, as)
		if err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
		sys := c.system()
		sys.OCIAcceptUncompressedLayers = opts.Compression == Uncompressed
		if _, err := c.write(ctx, from, to, sys, PushOptions{Compression: opts.Compression, Progress: opts.Progress}); err != nil {
			return fmt.Errorf("image %s: %w", name, err)
		}
	}
	return tarDirectory(ctx, w, dir)
}

func (c *Client) saveDocker(ctx context.Context, w io.Writer, dir string, images []string, opts SaveOptions) (err error) {
	path := filepath.Join(dir, "docker.tar")
	sys := c.system()
	archive, err := dockerarchive.NewWriter(sys, path)
	if err != nil {
		return err
	}
	for _, name := range images {
		if err := c.addToDocker(ctx, archive, name, opts); err != nil {
			return errors.Join(fmt.Errorf("image %s: %w", name, err), archive.Close())
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(w, &cancelReader{ReadCloser: f, ctx: ctx})
	return err
}

// forThisMachine picks the image of an index that is for this machine.
func (c *Client) forThisMachine(index string) (Source, error) {
	img, err := c.store.ImageFor(index, platforms.Default())
	if err != nil {
		return Source{}, fmt.Errorf("a docker archive holds one image (use the format oci for an index): %w", err)
	}
	return c.SourceOf(img.ID)
}

func (c *Client) addToDocker(ctx context.Context, archive *dockerarchive.Writer, name string, opts SaveOptions) error {
	from, tagged, err := c.saved(name)
	if err != nil {
		return err
	}
	to, err := archive.NewReference(tagged)
	if err != nil {
		return err
	}
	src := from.src
	if src.Index != nil {
		// A docker archive has no form for an index.
		if src, err = c.forThisMachine(name); err != nil {
			return err
		}
	}
	src.Docker = true
	if from, err = c.reference(src); err != nil {
		return err
	}
	_, err = c.write(ctx, from, to, c.system(), PushOptions{Compression: Uncompressed, Progress: opts.Progress})
	return err
}

// tarDirectory writes the files of dir with nothing in the headers that depends
// on when or by whom.
func tarDirectory(ctx context.Context, w io.Writer, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open layout: %w", err)
	}
	defer func() { _ = root.Close() }()
	tw := tar.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case path == ".":
			return nil
		case d.IsDir():
			return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: 0o755})
		}
		return tarFile(tw, root, path)
	})
	if err != nil {
		return fmt.Errorf("write archive: %w", err)
	}
	return tw.Close()
}

func tarFile(tw *tar.Writer, root *os.Root, path string) error {
	f, err := root.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
