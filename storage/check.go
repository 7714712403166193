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

// MaxLayers is the largest number of layers of an image that can be built on or
// run: one overlay has at most that many lower directories (OVL_MAX_STACK of the
// kernel).
const MaxLayers = 500

// DiffIDs returns the digests of layers that a config names, base first. It
// refuses what no layer can have: a config is what an image says of itself.
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

// CheckDigest reports an error unless d is a well-formed SHA-256 digest, the only
// kind that the store has for configs and layers.
func CheckDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d, err)
	}
	if d.Algorithm() != digest.Canonical {
		return fmt.Errorf("digest %q: %w", d, digest.ErrDigestUnsupported)
	}
	return nil
}

// CheckLayers reports an error, which wraps ErrOtherLayers, unless layers, base
// first, are those that config names. The diffIDs of layers were computed when
// they were unpacked, those of a config are a claim.
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

// digestOf returns the digest that a complete name ends with, "" for none.
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

// hasManifest reports whether dgst is the digest of the image's manifest, or of
// an index that it was picked from. The digests were computed from what the store
// has.
func hasManifest(img *cstorage.Image, dgst digest.Digest) bool {
	return slices.ContainsFunc(img.BigDataNames, func(key string) bool {
		return strings.HasPrefix(key, cstorage.ImageDigestManifestBigDataNamePrefix) && img.BigDataDigests[key] == dgst
	})
}

// checkNames refuses names that end with the digest of another image. Names of an
// archive or a layout are what its author likes.
func checkNames(img *cstorage.Image, names []string) error {
	for _, name := range names {
		if dgst := digestOf(name); dgst != "" && !hasManifest(img, dgst) {
			return fmt.Errorf("name image %s: %s: %w", short(img.ID), name, ErrOtherDigest)
		}
	}
	return nil
}
