package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/types"
)

// Digest returns the digest of the manifest or index that ref, a complete name, refers to
// at its registry. The error wraps ErrNotFound if there is no such name.
func (c *Client) Digest(ctx context.Context, ref string) (digest.Digest, error) {
	named, err := parseName(ref)
	if err != nil {
		return "", err
	}
	from, err := docker.NewReference(named)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", ref, err)
	}
	var dgst digest.Digest
	err = answered(ctx, func(ctx context.Context) (err error) {
		dgst, err = docker.GetDigest(ctx, c.system(), from)
		return err
	})
	if err == nil {
		return dgst, nil
	}
	// Some registries do not support HEAD or do not return the digest. And the response
	// to a failed HEAD has only a status code, without a message. So get the manifest.
	dgst, err = c.manifestDigest(ctx, from)
	return dgst, explain("look up", named, err)
}

func (c *Client) manifestDigest(ctx context.Context, ref types.ImageReference) (_ digest.Digest, err error) {
	src, err := openSource(ctx, ref, c.system())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	data, _, err := readManifest(ctx, image.UnparsedInstance(src, nil))
	if err != nil {
		return "", err
	}
	return manifest.Digest(data)
}

// tagPrepared pushes src without a tag, calls opts.Check and then writes the tag of
// named. Between the check and the tag there is only one request.
func (c *Client) tagPrepared(ctx context.Context, src Prepared, named imgref.Named, opts PreparedOptions) (err error) {
	exact, err := imgref.WithDigest(imgref.TrimNamed(named), digest.FromBytes(src.Manifest))
	if err != nil {
		return err
	}
	byDigest, err := docker.NewReference(exact)
	if err != nil {
		return err
	}
	byTag, err := docker.NewReference(named)
	if err != nil {
		return err
	}
	if err := c.pushPrepared(ctx, src, byDigest, opts); err != nil {
		return err
	}
	if err := opts.Check(ctx); err != nil {
		return err
	}
	dest, err := byTag.NewImageDestination(ctx, c.pushSystem(opts))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dest.Close()) }()
	if err := dest.PutManifest(ctx, src.Manifest, nil); err != nil {
		return err
	}
	return dest.Commit(ctx, image.UnparsedInstance(&preparedReader{&preparedRef{src}}, nil))
}
