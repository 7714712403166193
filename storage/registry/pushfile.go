package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"
)

// PushFile pushes the single image of an archive, or of a directory in OCI layout, to
// dest, a complete name. If dest has no tag, the tag is latest. The blobs of an OCI
// layout are pushed unchanged. Layers of a docker archive are compressed. No store is
// needed. Errors wrap ErrUnauthorized or ErrNotFound if the registry says so.
func (c *Client) PushFile(ctx context.Context, path, dest string) error {
	named, err := parseName(dest)
	if err != nil {
		return err
	}
	to, err := docker.NewReference(named)
	if err != nil {
		return fmt.Errorf("image name %q: %w", dest, err)
	}
	from, remove, err := openFile(ctx, path, c.system())
	if err != nil {
		return fmt.Errorf("read image %s: %w", path, err)
	}
	err = retry(ctx, c.opts.PushRetries, c.logger, func() error {
		err := c.pushFrom(ctx, from, to)
		if c.opts.IgnoreImmutableTags && isImmutableTag(err) {
			c.logger.Warn("the registry keeps the tag as it is", "name", named, "error", err)
			return nil
		}
		return explain("push", named, err)
	})
	return errors.Join(err, remove())
}

func (c *Client) pushFrom(ctx context.Context, from, to types.ImageReference) (err error) {
	policy, err := newPolicyContext(acceptAnything())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, policy.Destroy()) }()
	options := &copy.Options{SourceCtx: c.system(), DestinationCtx: c.system(), ImageListSelection: copy.CopyAllImages}
	options.PreserveDigests = from.Transport().Name() == layout.Transport.Name()
	_, err = copyImage(ctx, policy, to, from, options, nil)
	return err
}

// openFile opens the image in the file or directory path. The caller must call remove
// when it no longer needs the image.
func openFile(ctx context.Context, path string, sys *types.SystemContext) (_ types.ImageReference, remove func() error, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if info.IsDir() {
		if err := checkFiles(path); err != nil {
			return nil, nil, err
		}
		ref, err := firstOf(path)
		return ref, func() error { return nil }, err
	}
	dir, err := os.MkdirTemp("", "shale-push-")
	if err != nil {
		return nil, nil, err
	}
	ref, closeArchive, err := openArchive(ctx, path, dir, sys)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return ref, func() error { return errors.Join(closeArchive(), os.RemoveAll(dir)) }, nil
}

func openArchive(ctx context.Context, path, dir string, sys *types.SystemContext) (types.ImageReference, func() error, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	plain := filepath.Join(dir, "archive.tar")
	err = spool(ctx, f, plain)
	_ = f.Close() // opened for reading only
	if err != nil {
		return nil, nil, err
	}
	isDocker, isOCI, err := contents(ctx, plain)
	switch {
	case err != nil:
		return nil, nil, err
	case isOCI:
		tree := filepath.Join(dir, "layout")
		if err := unpackLayout(ctx, plain, tree); err != nil {
			return nil, nil, err
		}
		ref, err := firstOf(tree)
		return ref, func() error { return nil }, err
	case !isDocker:
		return nil, nil, errors.New("not an image archive: it has neither manifest.json nor index.json")
	}
	archive, err := dockerarchive.NewReader(sys, plain)
	if err != nil {
		return nil, nil, err
	}
	list, err := archive.List()
	if err != nil || len(list) != 1 {
		return nil, nil, errors.Join(err, archive.Close(), fmt.Errorf("it has %d images: want one", len(list)))
	}
	return list[0][0], archive.Close, nil
}

// firstOf returns the only image of a layout, which may have several names.
func firstOf(dir string) (types.ImageReference, error) {
	entries, err := layout.List(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.ManifestDescriptor.Digest != entries[0].ManifestDescriptor.Digest {
			return nil, errors.New("it has more than one image")
		}
	}
	if len(entries) == 0 {
		return nil, errors.New("it has no image")
	}
	return layout.NewIndexReference(dir, 0)
}
