package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

// Resolve returns the image that ref, a complete name, refers to at its registry for a
// platform. The zero platform is that of this machine.
//
// Resolve fetches the manifest and the config, verifies their digests and checks the
// signature policy. It does not fetch layers: a build that finds the layers in its cache
// never pulls them. If ref refers to an index, it returns ErrPlatform if no entry matches
// the platform. An image without an index is returned for any platform. Other errors wrap
// ErrNotFound or ErrUnauthorized if the registry says so.
func (c *Client) Resolve(ctx context.Context, ref string, platform ocispec.Platform) (Resolved, error) {
	named, err := parseName(ref)
	if err != nil {
		return Resolved{}, err
	}
	src, err := docker.NewReference(named)
	if err != nil {
		return Resolved{}, fmt.Errorf("image name %q: %w", ref, err)
	}
	var res Resolved
	err = retry(ctx, c.opts.PullRetries, c.logger, func() (err error) {
		res, err = c.inspect(ctx, src, "", c.systemFor(platform))
		return explain("resolve", named, err)
	})
	if err != nil {
		return Resolved{}, err
	}
	res.Name = named.String()
	res.Ref = named.Name() + "@" + res.Digest.String()
	return res, nil
}

// inspect reads the manifest and the config of a reference. For want, see bring.
func (c *Client) inspect(ctx context.Context, ref types.ImageReference, want digest.Digest, sys *types.SystemContext) (_ Resolved, err error) {
	src, err := openSource(ctx, ref, sys)
	if err != nil {
		return Resolved{}, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	policy, err := c.policy(sys)
	if err != nil {
		return Resolved{}, err
	}
	defer func() { err = errors.Join(err, policy.Destroy()) }()
	top := image.UnparsedInstance(src, nil)
	one := top
	data, mediaType, err := topManifest(ctx, top, want)
	if err != nil {
		return Resolved{}, err
	}
	res := Resolved{}
	if res.Digest, err = manifest.Digest(data); err != nil {
		return Resolved{}, fmt.Errorf("compute digest of manifest: %w", err)
	}
	res.ManifestDigest = res.Digest
	if manifest.MIMETypeIsMultiImage(mediaType) {
		if res.ManifestDigest, err = choose(data, mediaType, sys); err != nil {
			return Resolved{}, err
		}
		one = image.UnparsedInstance(src, &res.ManifestDigest)
	}
	if err := allowed(ctx, policy, top, one); err != nil {
		return Resolved{}, err
	}
	return res, (&fetcher{client: c, src: src}).fill(ctx, &res, one)
}

// allowed returns an error if the signature policy rejects an image or the index that it
// was selected from. Without an index both arguments are the same.
func allowed(ctx context.Context, policy *signature.PolicyContext, index, img *image.UnparsedImage) error {
	for _, unparsed := range slices.Compact([]*image.UnparsedImage{index, img}) {
		if ok, err := policy.IsRunningImageAllowed(ctx, unparsed); !ok {
			return fmt.Errorf("source image rejected: %w", err)
		}
	}
	return nil
}

func choose(index []byte, mediaType string, sys *types.SystemContext) (digest.Digest, error) {
	list, err := manifest.ListFromBlob(index, mediaType)
	if err != nil {
		return "", fmt.Errorf("read index: %w", err)
	}
	chosen, err := list.ChooseInstance(sys)
	if err != nil {
		return "", fmt.Errorf("%w %s/%s%s: %w", ErrPlatform, sys.OSChoice, sys.ArchitectureChoice, variant(sys.VariantChoice), err)
	}
	return chosen, nil
}

func variant(v string) string {
	if v == "" {
		return ""
	}
	return "/" + v
}

// fill reads the manifest and the config of the platform's image and checks that they
// match each other. The layers are compared with them later, while they are unpacked.
func (f *fetcher) fill(ctx context.Context, r *Resolved, unparsed *image.UnparsedImage) error {
	var err error
	if r.Manifest, r.MediaType, err = readManifest(ctx, unparsed); err != nil {
		return err
	}
	m, err := parseManifest(r.Manifest, r.MediaType)
	if err != nil {
		return err
	}
	if r.Config, err = f.config(ctx, m.ConfigInfo()); err != nil {
		return err
	}
	if _, err := offered(m, r.Config); err != nil {
		return err
	}
	if err := json.Unmarshal(r.Config, &r.Platform); err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	return nil
}
