package storage

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	cstorage "go.podman.io/storage"
)

// MaxLayers is the largest number of layers of an image that can be built on or run. An
// overlay has at most that many lower directories (OVL_MAX_STACK of the kernel).
const MaxLayers = 500

// DiffIDs returns the diffIDs that a config names, base first. A config is a claim of the
// image about itself, so DiffIDs returns an error if one of them is not a digest that a
// layer can have, see CheckDigest.
func DiffIDs(config []byte) ([]digest.Digest, error) {
	var c struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	for i, id := range c.RootFS.DiffIDs {
		if err := CheckDigest(id); err != nil {
			return nil, fmt.Errorf("read config: diff_ids: layer %d: %w", i, err)
		}
	}
	return c.RootFS.DiffIDs, nil
}

// CheckDigest returns an error if d is not a well-formed SHA-256 digest. The store has no
// other digests for configs and layers.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d, err)
	}
	if d.Algorithm() != digest.Canonical {
		return fmt.Errorf("digest %q: %w", d, digest.ErrDigestUnsupported)
	}
	return nil
}

// CheckLayers returns an error that wraps ErrOtherLayers if layers, base first, are not
// those that config names. The diffIDs of layers were computed when the layers were
// unpacked; the diffIDs in a config are only a claim.
func CheckLayers(config []byte, layers []Layer) error {
	claimed, err := DiffIDs(config)
	if err != nil {
		return err
	}
	if len(claimed) != len(layers) {
		return fmt.Errorf("%w: image has %d layers and its config names %d", ErrOtherLayers, len(layers), len(claimed))
	}
	for i, l := range layers {
		if l.DiffID != claimed[i] {
			return fmt.Errorf("%w: layer %d of the image is %q and its config names %s", ErrOtherLayers, i, l.DiffID, claimed[i])
		}
	}
	return nil
}

// digestOf returns the digest at the end of a complete name, "" if it has none.
func digestOf(name string) digest.Digest {
	if !strings.Contains(name, "@") {
		return ""
	}
	named, err := reference.ParseNamed(name)
	if err != nil {
		return ""
	}
	digested, ok := named.(reference.Digested)
	if !ok {
		return ""
	}
	return digested.Digest()
}

// hasManifest reports whether dgst is the digest of the image's manifest, or of an index
// that the image was picked from. The digests were computed from the data in the store.
func hasManifest(img *cstorage.Image, dgst digest.Digest) bool {
	return slices.ContainsFunc(img.BigDataNames, func(key string) bool {
		return strings.HasPrefix(key, cstorage.ImageDigestManifestBigDataNamePrefix) && img.BigDataDigests[key] == dgst
	})
}

// checkNames returns ErrOtherDigest if one of names ends with the digest of another
// image. The author of an archive or a layout can write any names into it.
func checkNames(img *cstorage.Image, names []string) error {
	for _, name := range names {
		if dgst := digestOf(name); dgst != "" && !hasManifest(img, dgst) {
			return fmt.Errorf("name image %s: %s: %w", short(img.ID), name, ErrOtherDigest)
		}
	}
	return nil
}
