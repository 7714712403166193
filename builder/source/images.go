package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
)

// Images resolves base images. It is safe for concurrent use.
type Images struct {
	store    *storage.Store
	registry *registry.Client
	keeper   Keeper
	logger   *slog.Logger

	// naming serializes changes of tags, so that two platforms of one build do not take a
	// tag from each other.
	naming sync.Mutex

	mu    sync.Mutex
	known map[string]base
}

// base is an image with a known config.
type base struct {
	// imageID and top are set for an image in the store. top is its topmost layer.
	imageID, top string
	// name is the name to pull. pinned is the name with a digest.
	name, pinned string
	platform     ocispec.Platform
	chain        digest.Digest
	config       []byte
	dgst         digest.Digest
	// manifest is set for an image in a registry.
	manifest []byte
}

// localPrefix is the prefix of images that were built here with a tag without a registry.
// No registry is asked for these names.
const localPrefix = "localhost/"

// Keeper keeps layers in the store while a build needs them.
type Keeper interface {
	// Layer keeps a layer and reports whether it is in the store. The id "" means no
	// layer.
	Layer(id string) (there bool, err error)
}

// NewImages returns an Images that looks in store first and then asks reg. The layers of
// all images that it uses are passed to keeper.
func NewImages(store *storage.Store, reg *registry.Client, keeper Keeper, logger *slog.Logger) *Images {
	return &Images{store: store, registry: reg, keeper: keeper, logger: logger, known: map[string]base{}}
}

// Resolve returns the image that ref names for a platform: its complete name with a
// digest, the digest, and the config. If platform is nil, it is the platform of this
// machine. A name without a registry may refer to an image that was built here, see
// candidates. If pull is set, a registry is asked even if the store has an image with
// that name.
func (im *Images) Resolve(ctx context.Context, ref string, platform *ocispec.Platform, pull bool) (string, digest.Digest, []byte, error) {
	b, err := im.resolve(ctx, ref, wanted(platform), pull)
	if err != nil {
		return "", "", nil, err
	}
	return b.pinned, b.dgst, b.config, nil
}

func wanted(platform *ocispec.Platform) ocispec.Platform {
	if platform == nil {
		return platforms.DefaultSpec()
	}
	return platforms.Normalize(*platform)
}

func (im *Images) resolve(ctx context.Context, ref string, platform ocispec.Platform, pull bool) (base, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return base{}, fmt.Errorf("image name %q: %w", ref, err)
	}
	named = reference.TagNameOnly(named)
	bare := !frontend.HasRegistry(ref)
	key := cacheKey(named.String(), platform)
	if bare {
		key = cacheKey(reference.FamiliarString(named), platform)
	}
	im.mu.Lock()
	b, ok := im.known[key]
	im.mu.Unlock()
	if ok {
		return b, nil
	}
	b, err = im.find(ctx, named, bare, platform, pull)
	if err != nil {
		return base{}, err
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	im.known[key] = b
	// The graph uses the pinned name.
	im.known[cacheKey(b.pinned, platform)] = b
	return b, nil
}

func cacheKey(name string, platform ocispec.Platform) string {
	return name + "|" + platforms.FormatAll(platform)
}

func (im *Images) find(ctx context.Context, named reference.Named, bare bool, platform ocispec.Platform, pull bool) (base, error) {
	names := []string{named.String()}
	var unclear error
	if bare {
		names, unclear = im.candidates(named)
	}
	var unusable []error
	for _, name := range names {
		// An image that was built here is not in a registry.
		if pull && !strings.HasPrefix(name, localPrefix) {
			continue
		}
		b, err := im.local(name, platform)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, errNotHere) {
			unusable = append(unusable, err)
		}
	}
	if unclear != nil {
		return base{}, errors.Join(append(unusable, unclear)...)
	}
	errs := []error{fmt.Errorf("image %s for %s: not in the store", reference.FamiliarString(named), platforms.Format(platform))}
	for _, name := range names {
		if strings.HasPrefix(name, localPrefix) {
			continue
		}
		b, err := im.remote(ctx, name, platform)
		if err == nil {
			return b, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) > 1 || len(unusable) > 0 {
		errs = errs[1:] // the errors of the registries are more specific
	}
	return base{}, errors.Join(append(unusable, errs...)...)
}

// candidates returns the complete names for a name without a registry, in the order in
// which they are tried. The first is the name of an image that was built here, which
// starts with localhost. The short names of registries.conf follow, or docker.io if it
// has none. If registries.conf is not valid, candidates returns the first name and the
// error.
func (im *Images) candidates(named reference.Named) ([]string, error) {
	familiar := reference.FamiliarString(named)
	local := []string{localPrefix + familiar}
	names, err := im.registry.Candidates(familiar)
	if err != nil {
		return local, fmt.Errorf("short name %q: %w", familiar, err)
	}
	return append(local, names...), nil
}

// errNotHere is returned if the store has no image with the name and platform.
var errNotHere = errors.New("image is not in the store")

// local finds an image with the name and platform in the store. It may be part of an
// index that was built here.
func (im *Images) local(name string, platform ocispec.Platform) (base, error) {
	img, err := im.hold(name, platform)
	if err != nil {
		return base{}, err
	}
	b, err := im.base(name, img, platform)
	if errors.Is(err, errOtherPlatform) {
		return base{}, errNotHere
	}
	if err != nil {
		im.logger.Warn("an image in the store cannot be used as a base", "image", name, "error", err)
		return base{}, fmt.Errorf("image %s in the store: %w", name, err)
	}
	return b, nil
}

// hold finds an image in the store and locks it there.
func (im *Images) hold(name string, platform ocispec.Platform) (storage.Image, error) {
	for {
		img, err := im.store.ImageFor(name, platforms.OnlyStrict(platform))
		if err != nil {
			return storage.Image{}, errNotHere
		}
		if err := im.store.Hold(img.ID); err != nil {
			return storage.Image{}, err
		}
		// The image may have been removed before it was locked. In that case the name
		// belongs to another image or does not exist.
		img, err = im.store.Image(img.ID)
		if errors.Is(err, storage.ErrImageUnknown) {
			continue
		}
		if err != nil {
			return storage.Image{}, err
		}
		there, err := im.keeper.Layer(img.TopLayer)
		if err != nil {
			return storage.Image{}, err
		}
		if !there {
			return storage.Image{}, errNotHere
		}
		return img, nil
	}
}

// base returns the base for an image in the store. Its chainID is computed from its
// layers, whose digests were computed when they were unpacked. The config is not used for
// that, because another tool may have recorded an image with a config that does not match
// its layers.
func (im *Images) base(name string, img storage.Image, platform ocispec.Platform) (base, error) {
	config, err := im.store.ImageConfig(img.ID)
	if err != nil {
		return base{}, err
	}
	if err := isFor(config, platform); err != nil {
		return base{}, err
	}
	layers, err := im.store.Chain(img.TopLayer)
	if err != nil {
		return base{}, err
	}
	if err := storage.CheckLayers(config, layers); err != nil {
		return base{}, err
	}
	return base{
		imageID: img.ID, top: img.TopLayer, name: name, pinned: pin(name, img.Digest), platform: platform, chain: chainOf(layers), config: config, dgst: img.Digest,
	}, nil
}

// remote asks the registry for an image. Its chainID comes from the config and is not
// verified yet. fetch returns an error if the layers do not match it.
func (im *Images) remote(ctx context.Context, name string, platform ocispec.Platform) (base, error) {
	res, err := im.registry.Resolve(ctx, name, platform)
	if err != nil {
		return base{}, err
	}
	chain, err := claimedChain(res.Config)
	if err != nil {
		return base{}, fmt.Errorf("image %s: %w", name, err)
	}
	return base{
		name: name, pinned: pin(name, res.Digest), platform: platform, chain: chain, config: res.Config, dgst: res.Digest, manifest: res.Manifest,
	}, nil
}

// errOtherPlatform is returned if an image is for another platform.
var errOtherPlatform = errors.New("image is for another platform")

// isFor returns an error if a config is for another platform. A config without a platform
// is accepted.
func isFor(config []byte, platform ocispec.Platform) error {
	var of ocispec.Platform
	if err := json.Unmarshal(config, &of); err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if of.OS != "" && !platforms.OnlyStrict(platform).Match(platforms.Normalize(of)) {
		return errOtherPlatform
	}
	return nil
}

func pin(name string, dgst digest.Digest) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	if _, ok := named.(reference.Digested); ok {
		return named.String()
	}
	// Keep the tag for the user: name:tag@digest.
	pinned, err := reference.WithDigest(named, dgst)
	if err != nil {
		return name
	}
	return pinned.String()
}

// claimedChain returns the chainID of the topmost layer in a config, or "" if it has no
// layers.
func claimedChain(config []byte) (digest.Digest, error) {
	ids, err := storage.DiffIDs(config)
	return identity.ChainID(ids), err
}

// chainOf returns the chainID of the topmost layer, or "" if there are no layers.
func chainOf(layers []storage.Layer) digest.Digest {
	ids := make([]digest.Digest, len(layers))
	for i, l := range layers {
		ids[i] = l.DiffID
	}
	return identity.ChainID(ids)
}

// unpacked keeps the layers of a fetched image and returns its topmost layer. If owners
// are recorded, this may be another layer with the same content, see storage.Store.Adopt.
// It returns storage.ErrOtherLayers if the layers do not have the chainID chain. This
// check is necessary, because a chainID that is not verified must not be recorded in the
// cache.
func (im *Images) unpacked(ctx context.Context, top string, chain digest.Digest) (string, error) {
	if _, err := im.keeper.Layer(top); err != nil {
		return "", err
	}
	layers, err := im.store.Chain(top)
	if err != nil {
		return "", err
	}
	if got := chainOf(layers); got != chain {
		return "", fmt.Errorf("%w: they have the chain %q instead of %q", storage.ErrOtherLayers, got, chain)
	}
	own, err := im.store.Adopt(ctx, top)
	if err != nil || own == top {
		return own, err
	}
	_, err = im.keeper.Layer(own)
	return own, err
}

// fetch fetches the layers of b into the store and returns the topmost layer.
func (im *Images) fetch(ctx context.Context, b base, progress registry.Progress) (string, error) {
	if b.chain == "" {
		return "", nil
	}
	if b.imageID != "" {
		// The image may have been removed, but its layers are kept.
		return im.unpacked(ctx, b.top, b.chain)
	}
	named, err := reference.ParseNormalizedNamed(b.name)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", b.name, err)
	}
	exact, err := reference.WithDigest(reference.TrimNamed(named), b.dgst)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", b.name, err)
	}
	before, err := im.store.Image(exact.String())
	hadName := err == nil && slices.Contains(before.Names, exact.String())
	img, err := im.registry.Pull(ctx, exact.String(), registry.PullOptions{Platform: b.platform, Progress: progress})
	if err != nil {
		return "", err
	}
	top, err := im.unpacked(ctx, img.TopLayer, b.chain)
	if err != nil {
		return "", fmt.Errorf("image %s: %w", b.name, err)
	}
	if err := im.name(img, named, b.platform); err != nil {
		return "", fmt.Errorf("name image %s: %w", b.name, err)
	}
	if hadName {
		return top, nil
	}
	if err := im.dropDigest(img.ID, named, exact.String()); err != nil {
		return "", fmt.Errorf("name image %s: %w", b.name, err)
	}
	return top, nil
}

// dropDigest removes the name with a digest from an image that was requested by its tag.
// It was pulled by that name. The name would keep the image after its tag is moved or
// removed.
func (im *Images) dropDigest(id string, named reference.Named, exact string) error {
	if _, digested := named.(reference.Digested); digested {
		return nil
	}
	im.naming.Lock()
	defer im.naming.Unlock()
	img, err := im.store.Image(id)
	if err != nil || len(img.Names) < 2 {
		return nil // it was removed, its layers are kept
	}
	return im.store.RemoveNames(id, exact)
}

// name gives a pulled image the tag by which it was requested. If another platform has
// the tag, the image gets a name with the digest of its own manifest instead. The digest
// of the index is not sufficient, because it is the same for all platforms.
func (im *Images) name(img storage.Image, named reference.Named, platform ocispec.Platform) error {
	if _, tagged := named.(reference.Tagged); !tagged {
		return nil
	}
	im.naming.Lock()
	defer im.naming.Unlock()
	if !im.mayName(named.String(), platform) {
		return im.nameByDigest(img, named)
	}
	if err := im.keepName(img, named); err != nil {
		return err
	}
	// The tag gets the image that it referred to when the build started.
	return im.store.AddNames(img.ID, named.String())
}

// keepName gives a name with a digest to the image that loses the tag to an image for
// another platform.
func (im *Images) keepName(img storage.Image, named reference.Named) error {
	holder, err := im.store.Image(named.String())
	if err != nil || holder.ID == img.ID || im.isNative(holder) {
		return nil //nolint:nilerr // nobody has it
	}
	return im.nameByDigest(holder, named)
}

func (im *Images) nameByDigest(img storage.Image, named reference.Named) error {
	own, err := reference.WithDigest(reference.TrimNamed(named), img.Digest)
	if err != nil {
		return err
	}
	return im.store.AddNames(img.ID, own.String())
}

// mayName reports whether the image for a platform may get a tag. If the store has the
// image of this machine's platform under that tag, it keeps the tag. Otherwise the tag
// would alternate between the platforms of one build.
func (im *Images) mayName(name string, platform ocispec.Platform) bool {
	if platforms.Default().Match(platform) {
		return true
	}
	img, err := im.store.Image(name)
	return err != nil || !im.isNative(img)
}

// isNative reports whether an image is for the platform of this machine.
func (im *Images) isNative(img storage.Image) bool {
	config, err := im.store.ImageConfig(img.ID)
	if err != nil {
		return false
	}
	return isFor(config, platforms.DefaultSpec()) == nil
}
