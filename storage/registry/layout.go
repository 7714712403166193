package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"

	"github.com/shale-build/shale/storage"
)

// ResolveLayout is like Resolve for PATH[:TAG|@DIGEST], a directory in OCI layout.
// Without a tag and a digest, it takes the only image of the layout, or else the image
// with the tag latest. Ref of the result is PATH@DIGEST. The error wraps ErrNotFound if
// the layout or the image does not exist.
func (c *Client) ResolveLayout(ctx context.Context, where string, platform ocispec.Platform) (Resolved, error) {
	ref, path, dgst, err := openLayout(where)
	if err != nil {
		return Resolved{}, err
	}
	res, err := c.inspect(ctx, ref, dgst, c.systemFor(platform))
	if err != nil {
		return Resolved{}, fmt.Errorf("read OCI layout %s: %w", where, err)
	}
	res.Name = where
	res.Ref = path + "@" + res.Digest.String()
	return res, nil
}

// PullLayout is like Pull for PATH[:TAG|@DIGEST], a directory in OCI layout. The image
// gets no name. The error wraps ErrNotFound if the layout or the image does not exist.
func (c *Client) PullLayout(ctx context.Context, where string, opts PullOptions) (storage.Image, error) {
	ref, _, dgst, err := openLayout(where)
	if err != nil {
		return storage.Image{}, err
	}
	img, err := c.bring(ctx, ref, dgst, nil, opts)
	if err != nil {
		return storage.Image{}, fmt.Errorf("read OCI layout %s: %w", where, err)
	}
	return img, nil
}

// openLayout finds an image in a layout. It returns the reference, the absolute path of
// the directory and the digest that the image's manifest or index must have.
func openLayout(where string) (_ types.ImageReference, path string, _ digest.Digest, err error) {
	path, tag, dgst := splitLayout(where)
	if path, err = filepath.Abs(path); err != nil {
		return nil, "", "", fmt.Errorf("find OCI layout %s: %w", where, err)
	}
	if err := checkFiles(path); err != nil {
		return nil, "", "", fmt.Errorf("OCI layout %s: %w", path, err)
	}
	entries, err := layout.List(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", "", fmt.Errorf("OCI layout %s: %w: no index.json there", path, ErrNotFound)
	}
	if err != nil {
		return nil, "", "", fmt.Errorf("read OCI layout %s: %w", path, err)
	}
	i, err := pick(entries, tag, dgst)
	if err != nil {
		return nil, "", "", fmt.Errorf("OCI layout %s: %w", path, err)
	}
	ref, err := layout.NewIndexReference(path, i)
	if err != nil {
		return nil, "", "", fmt.Errorf("read OCI layout %s: %w", path, err)
	}
	return ref, path, entries[i].ManifestDescriptor.Digest, nil
}

// checkFiles returns an error if an index or a blob of a layout is not a regular file,
// because opening a FIFO waits for a writer (fifo(7)). A missing file is not an error
// here.
func checkFiles(dir string) error {
	for _, name := range []string{ocispec.ImageIndexFile, ocispec.ImageLayoutFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && !info.Mode().IsRegular() {
			return fmt.Errorf("%s is not a file", name)
		}
	}
	blobs := filepath.Join(dir, ocispec.ImageBlobsDir)
	algorithms, _ := os.ReadDir(blobs)
	for _, a := range algorithms {
		entries, _ := os.ReadDir(filepath.Join(blobs, a.Name()))
		for _, e := range entries {
			if e.Type().IsRegular() {
				continue
			}
			if info, err := os.Stat(filepath.Join(blobs, a.Name(), e.Name())); err == nil && !info.Mode().IsRegular() {
				return fmt.Errorf("%s is not a file", filepath.Join(ocispec.ImageBlobsDir, a.Name(), e.Name()))
			}
		}
	}
	return nil
}

func pick(entries []layout.ListResult, tag string, dgst digest.Digest) (int, error) {
	if tag == "" && dgst == "" {
		if len(entries) == 1 {
			return 0, nil
		}
		tag = "latest"
	}
	for i, e := range entries {
		if dgst != "" && e.ManifestDescriptor.Digest == dgst {
			return i, nil
		}
		if dgst == "" && e.ManifestDescriptor.Annotations[ocispec.AnnotationRefName] == tag {
			return i, nil
		}
	}
	if dgst != "" {
		return 0, fmt.Errorf("%w: no image %s", ErrNotFound, dgst)
	}
	return 0, fmt.Errorf("%w: no image with the tag %q among %d", ErrNotFound, tag, len(entries))
}

// splitLayout splits PATH[:TAG|@DIGEST]. A path may contain colons, too: the part after
// the last colon is a tag only if it has no slash.
func splitLayout(where string) (path, tag string, dgst digest.Digest) {
	if i := strings.LastIndexByte(where, '@'); i >= 0 {
		if d, err := digest.Parse(where[i+1:]); err == nil {
			where, dgst = where[:i], d
		}
	}
	if i := strings.LastIndexByte(where, ':'); i > 0 && !strings.Contains(where[i:], "/") {
		where, tag = where[:i], where[i+1:]
	}
	return where, tag, dgst
}
