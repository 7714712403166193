package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	imgref "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/signature"
	transport "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	cstorage "go.podman.io/storage"

	"github.com/shale-build/shale/storage"
)

// Pull copies an image into the store and gives it the name ref, a complete name. It
// enforces the signature policy. If the store has the image already, Pull fetches only
// the manifest, the config and those blobs that were never unpacked on this machine.
// Pulls of the same image may run at the same time, also in several processes.
//
// Pull returns ErrPlatform if an index has no image for opts.Platform. Other errors wrap
// ErrNotFound or ErrUnauthorized if the registry says so.
func (c *Client) Pull(ctx context.Context, ref string, opts PullOptions) (storage.Image, error) {
	named, err := parseName(ref)
	if err != nil {
		return storage.Image{}, err
	}
	src, err := docker.NewReference(named)
	if err != nil {
		return storage.Image{}, fmt.Errorf("image name %q: %w", ref, err)
	}
	var img storage.Image
	err = retry(ctx, c.opts.PullRetries, c.logger, func() (err error) {
		img, err = c.bring(ctx, src, "", []imgref.Named{named}, opts)
		return explain("pull", named, err)
	})
	return img, err
}

// bring copies the image that ref refers to into the store, with names. top is the digest
// that the manifest or index must have, or "" for any: not every transport verifies it.
// The image gets its names only after all of it has been verified.
func (c *Client) bring(ctx context.Context, ref types.ImageReference, top digest.Digest, names []imgref.Named, opts PullOptions) (_ storage.Image, err error) {
	if c.store == nil {
		return storage.Image{}, errNoStore
	}
	sys := c.systemFor(opts.Platform)
	policy, err := c.policy(sys)
	if err != nil {
		return storage.Image{}, err
	}
	defer func() { err = errors.Join(err, policy.Destroy()) }()
	for again := true; ; again = false {
		img, err := c.bringOnce(ctx, ref, top, names, policy, sys, opts)
		// Another program has removed the image in the meantime.
		if again && errors.Is(err, storage.ErrImageUnknown) && ctx.Err() == nil {
			continue
		}
		return img, err
	}
}

func (c *Client) bringOnce(ctx context.Context, ref types.ImageReference, top digest.Digest, names []imgref.Named, policy *signature.PolicyContext, sys *types.SystemContext, opts PullOptions) (_ storage.Image, err error) {
	o, err := c.present(ctx, ref, top, names, policy, sys, opts)
	if err != nil {
		return storage.Image{}, err
	}
	if o.image == nil {
		interim, done, announceErr := c.store.AnnounceImage(ctx, o.id)
		if announceErr != nil {
			return storage.Image{}, announceErr
		}
		defer func() { err = errors.Join(err, done()) }()
		if o.image, err = c.copyIn(ctx, ref, o, interim, policy, sys); err != nil {
			return storage.Image{}, err
		}
	}
	var list []string
	for _, name := range names {
		list = append(list, name.String())
	}
	if err := c.store.AddNames(o.image.ID, list...); err != nil {
		return storage.Image{}, err
	}
	return c.store.Image(o.image.ID)
}

// offer is an image as it is in a registry, an archive or a layout.
type offer struct {
	// index is the index that the image was selected from, or the image's manifest.
	index, manifest []byte
	// config has been verified against its digest.
	config []byte
	layers []*wanted
	// id is the ID of the image in the store. image is nil if the store does not have it.
	id    string
	image *storage.Image
}

// present reads the image that ref refers to and looks for it in the store. If the store
// does not have the image, image is nil in the result, but the store has all its layers.
//
// The transport containers-storage is not used for this. It would fetch the layers again.
// And it would refuse an image that was built here and pushed, because the transport
// gives layers other IDs.
func (c *Client) present(ctx context.Context, ref types.ImageReference, want digest.Digest, names []imgref.Named, policy *signature.PolicyContext, sys *types.SystemContext, opts PullOptions) (_ *offer, err error) {
	src, err := openSource(ctx, ref, sys)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	top := image.UnparsedInstance(src, nil)
	o := &offer{}
	index, mediaType, err := topManifest(ctx, top, want)
	if err != nil {
		return nil, err
	}
	one := top
	if manifest.MIMETypeIsMultiImage(mediaType) {
		chosen, err := choose(index, mediaType, sys)
		if err != nil {
			return nil, err
		}
		one = image.UnparsedInstance(src, &chosen)
	}
	o.index = index
	if o.manifest, mediaType, err = readManifest(ctx, one); err != nil {
		return nil, err
	}
	if err := allowed(ctx, policy, top, one); err != nil {
		return nil, err
	}
	if err := o.checkNames(names); err != nil {
		return nil, err
	}
	m, err := parseManifest(o.manifest, mediaType)
	if err != nil {
		return nil, err
	}
	f := &fetcher{client: c, src: src, progress: opts.Progress}
	if o.config, err = f.config(ctx, m.ConfigInfo()); err != nil {
		return nil, err
	}
	if o.layers, err = offered(m, o.config); err != nil {
		return nil, err
	}
	if opts.OnlyPlatform {
		if err := isFor(o.config, opts.Platform); err != nil {
			return nil, err
		}
	}
	f.known = openLocations(sys)
	defer f.known.close()
	o.id = m.ConfigInfo().Digest.Encoded()
	if err := c.store.Hold(o.id); err != nil {
		return nil, err
	}
	if o.image = c.complete(o.id); o.image == nil {
		return o, f.all(ctx, o.layers)
	}
	if err := f.verify(ctx, o.layers); err != nil {
		return nil, err
	}
	return o, c.addManifests(o.image, o.index, o.manifest)
}

// isFor returns ErrPlatform if a config is for another platform than wanted. A config
// without a platform is for all platforms.
func isFor(config []byte, wanted ocispec.Platform) error {
	var of ocispec.Platform
	if err := json.Unmarshal(config, &of); err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	of, wanted = platforms.Normalize(of), platforms.Normalize(wanted)
	if of.OS == "" || of.OS == wanted.OS && of.Architecture == wanted.Architecture && platforms.Only(wanted).Match(of) {
		return nil
	}
	return fmt.Errorf("%w %s: it is for %s", ErrPlatform, platforms.Format(wanted), platforms.Format(of))
}

// checkNames returns an error if the digest in a name is neither that of the manifest nor
// that of the index.
func (o *offer) checkNames(names []imgref.Named) error {
	for _, name := range names {
		digested, ok := name.(imgref.Digested)
		if !ok {
			continue
		}
		if matchesAny(digested.Digest(), o.index, o.manifest) != nil {
			return fmt.Errorf("image named %s: %w", name, storage.ErrOtherDigest)
		}
	}
	return nil
}

// complete returns the image with that ID if the store has all of it and its layers match
// its config, and nil otherwise.
func (c *Client) complete(id string) *storage.Image {
	img, err := c.store.Image(id)
	if err != nil || img.ReadOnly || img.ID != id {
		return nil
	}
	if _, err := c.SourceOf(img.ID); err != nil {
		return nil
	}
	return &img
}

// addManifests adds manifests to an image, so that the image is found by their digests.
func (c *Client) addManifests(img *storage.Image, blobs ...[]byte) error {
	lib := c.store.Library()
	for _, data := range blobs {
		dgst, err := manifest.Digest(data)
		if err != nil {
			return fmt.Errorf("compute digest of manifest: %w", err)
		}
		if dgst == img.Digest {
			continue
		}
		key := cstorage.ImageDigestManifestBigDataNamePrefix + "-" + dgst.String()
		if _, err := lib.ImageBigDataDigest(img.ID, key); err == nil {
			continue
		}
		if err := lib.SetImageBigData(img.ID, key, data, manifest.Digest); err != nil {
			return fmt.Errorf("update image: %w", err)
		}
	}
	return nil
}

// copyIn records the image in the store under its ID and a name. It uses the transport
// containers-storage, which reads the source again, so copyIn verifies the record.
func (c *Client) copyIn(ctx context.Context, src types.ImageReference, o *offer, name string, policy *signature.PolicyContext, sys *types.SystemContext) (_ *storage.Image, err error) {
	named, err := imgref.ParseNamed(name)
	if err != nil {
		return nil, fmt.Errorf("prepare store: %w", err)
	}
	dest, err := transport.Transport.NewStoreReference(c.store.Library(), named, o.id)
	if err != nil {
		return nil, fmt.Errorf("prepare store: %w", err)
	}
	done, err := c.store.AnnounceLayers(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	_, err = c.store.Image(o.id)
	isNew := errors.Is(err, storage.ErrImageUnknown)
	// The store has the layers. Only small objects remain to be fetched.
	err = answered(ctx, func(ctx context.Context) error {
		_, err := copyImage(ctx, policy, dest, src, &copy.Options{SourceCtx: sys, DestinationCtx: sys}, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	img, err := c.recorded(o)
	if err != nil && isNew {
		_, removeErr := c.store.RemoveImage(o.id, storage.Removal{})
		err = errors.Join(err, removeErr)
	}
	return img, err
}

// recorded returns the image as it is in the store. It returns an error if its config or
// its layers are not those of o.
func (c *Client) recorded(o *offer) (*storage.Image, error) {
	img, err := c.store.Image(o.id)
	if err != nil {
		return nil, fmt.Errorf("find image that was just recorded: %w", err)
	}
	config, err := c.store.ImageConfig(img.ID)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(config, o.config) {
		return nil, fmt.Errorf("image %s changed while it was pulled", o.id)
	}
	layers, err := c.store.Chain(img.TopLayer)
	if err != nil {
		return nil, err
	}
	return &img, storage.CheckLayers(config, layers)
}

const progressInterval = 100 * time.Millisecond

// copyImage calls copy.Image and reports progress. It returns the manifest as it was
// written.
func copyImage(ctx context.Context, policy *signature.PolicyContext, dest, src types.ImageReference, opts *copy.Options, progress Progress) ([]byte, error) {
	if progress == nil {
		return copy.Image(ctx, policy, dest, src, opts)
	}
	events := make(chan types.ProgressProperties)
	opts.Progress, opts.ProgressInterval = events, progressInterval
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for e := range events {
			report(progress, e)
		}
	}()
	data, err := copy.Image(ctx, policy, dest, src, opts)
	close(events)
	<-finished
	return data, err
}

func report(progress Progress, e types.ProgressProperties) {
	total := max(e.Artifact.Size, 0)
	current := int64(e.Offset)
	id := e.Artifact.Digest.String()
	switch e.Event {
	case types.ProgressEventNewArtifact:
		progress.Update(id, 0, total, false)
	case types.ProgressEventRead:
		progress.Update(id, current, total, false)
	case types.ProgressEventDone:
		progress.Update(id, max(current, total), max(current, total), true)
	case types.ProgressEventSkipped:
		progress.Update(id, total, total, true)
	}
}
