package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

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

// Pull brings an image into the store and names it ref, a complete name. The
// signature policy is honoured. When the store has the very image already nothing
// but its manifest is fetched. Pulls of the same image may run side by side, in
// several processes too.
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
		img, err = c.bring(ctx, src, named, opts)
		return explain("pull", named, err)
	})
	return img, err
}

// bring copies src into the store, as named unless that is nil.
func (c *Client) bring(ctx context.Context, src types.ImageReference, named imgref.Named, opts PullOptions) (_ storage.Image, err error) {
	if c.store == nil {
		return storage.Image{}, errNoStore
	}
	sys := c.systemFor(opts.Platform)
	policy, err := c.policy(sys)
	if err != nil {
		return storage.Image{}, err
	}
	defer func() { err = errors.Join(err, policy.Destroy()) }()
	id, present, err := c.present(ctx, src, policy, sys, opts.Progress)
	if err != nil {
		return storage.Image{}, err
	}
	if present == nil {
		if present, err = c.copyIn(ctx, src, named, id, policy, sys); err != nil {
			return storage.Image{}, err
		}
	}
	if named != nil {
		if err := c.store.AddNames(present.ID, named.String()); err != nil {
			return storage.Image{}, err
		}
	}
	return c.store.Image(present.ID)
}

// present finds the image that src stands for in the store, nil when it is not
// there, and returns the ID it has or will have. The transport would fetch its
// layers again; and it refuses an image that was built here and pushed, because
// the layers have other IDs than it would give them. Of an image that is not there
// the layers are when present returns.
func (c *Client) present(ctx context.Context, ref types.ImageReference, policy *signature.PolicyContext, sys *types.SystemContext, progress Progress) (_ string, _ *storage.Image, err error) {
	src, err := ref.NewImageSource(ctx, sys)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	top := image.UnparsedInstance(src, nil)
	list, mediaType, err := top.Manifest(ctx)
	if err != nil {
		return "", nil, err
	}
	one := top
	if manifest.MIMETypeIsMultiImage(mediaType) {
		chosen, err := choose(list, mediaType, sys)
		if err != nil {
			return "", nil, err
		}
		one = image.UnparsedInstance(src, &chosen)
	}
	data, mediaType, err := one.Manifest(ctx)
	if err != nil {
		return "", nil, err
	}
	m, err := manifest.FromBlob(data, mediaType)
	if err != nil {
		return "", nil, fmt.Errorf("read manifest: %w", err)
	}
	id := m.ConfigInfo().Digest.Encoded()
	img := c.complete(id)
	if err := allowed(ctx, policy, top, one); err != nil {
		return "", nil, err
	}
	if img == nil {
		return id, nil, c.fetchLayers(ctx, src, m, sys, progress)
	}
	return id, img, c.addManifests(img, list, data)
}

// complete returns the image with that ID when all of it is in the store.
func (c *Client) complete(id string) *storage.Image {
	if id == "" {
		return nil
	}
	img, err := c.store.Image(id)
	if err != nil || img.ReadOnly || img.ID != id {
		return nil
	}
	if _, err := c.SourceOf(img.ID); err != nil {
		return nil
	}
	return &img
}

// addManifests lets the image be found by the digests it was asked for by.
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

// copyIn lets the containers-storage transport record the image as named, or
// under its ID alone.
func (c *Client) copyIn(ctx context.Context, src types.ImageReference, named imgref.Named, id string, policy *signature.PolicyContext, sys *types.SystemContext) (_ *storage.Image, err error) {
	if named != nil {
		id = ""
	}
	dest, err := transport.Transport.NewStoreReference(c.store.Library(), named, id)
	if err != nil {
		return nil, fmt.Errorf("prepare store: %w", err)
	}
	done, err := c.store.AnnounceLayers()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	var recorded types.ImageReference
	opts := &copy.Options{SourceCtx: sys, DestinationCtx: sys, ReportResolvedReference: &recorded}
	if _, err := copyImage(ctx, policy, dest, src, opts, nil); err != nil {
		return nil, err
	}
	_, img, err := transport.ResolveReference(recorded)
	if err != nil {
		return nil, fmt.Errorf("find image that was just recorded: %w", err)
	}
	found, err := c.store.Image(img.ID)
	if err != nil {
		return nil, err
	}
	return &found, nil
}

const progressInterval = 100 * time.Millisecond

// copyImage is copy.Image with progress. It returns the manifest as written.
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
