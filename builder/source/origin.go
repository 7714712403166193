package source

import (
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Origin is a layer as the registry has it that its image came from.
type Origin struct {
	Desc ocispec.Descriptor
	ref  string
	from *Images
}

// Open fetches the layer. The caller verifies it.
func (o Origin) Open(ctx context.Context) (io.ReadCloser, error) {
	return o.from.registry.Blob(ctx, o.ref, o.Desc)
}

// Origin finds the published form of a layer of one of the base images that
// this build resolved.
func (im *Images) Origin(diffID digest.Digest) (Origin, bool) {
	im.mu.Lock()
	defer im.mu.Unlock()
	for _, b := range im.known {
		if o, ok := im.originIn(b, diffID); ok {
			return o, true
		}
	}
	return Origin{}, false
}

func (im *Images) originIn(b base, diffID digest.Digest) (Origin, bool) {
	if strings.HasPrefix(b.name, localPrefix) {
		return Origin{}, false
	}
	data := b.manifest
	if b.imageID != "" {
		var err error
		if data, err = im.store.ImageManifest(b.imageID); err != nil {
			return Origin{}, false
		}
	}
	var config struct {
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	var manifest ocispec.Manifest
	if json.Unmarshal(b.config, &config) != nil || json.Unmarshal(data, &manifest) != nil ||
		len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return Origin{}, false
	}
	named, err := reference.ParseNormalizedNamed(b.name)
	if err != nil {
		return Origin{}, false
	}
	exact, err := reference.WithDigest(reference.TrimNamed(named), b.dgst)
	if err != nil {
		return Origin{}, false
	}
	for i, id := range config.RootFS.DiffIDs {
		// What was built here and never published is not compressed.
		if desc := manifest.Layers[i]; id == diffID && (b.imageID == "" || desc.Digest != diffID) {
			return Origin{Desc: desc, ref: exact.String(), from: im}, true
		}
	}
	return Origin{}, false
}
