package source

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
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
// this build resolved. Only a blob that has the layer, by what was computed here,
// is one: two images may name the same layer and have different blobs for it.
func (im *Images) Origin(ctx context.Context, diffID digest.Digest) (Origin, bool) {
	for _, o := range im.claimed(diffID) {
		if err := im.registry.Holds(ctx, o.ref, o.Desc, diffID); ctx.Err() != nil {
			return Origin{}, false
		} else if err != nil {
			im.logger.Warn("a layer is not taken as its base was published", "image", o.ref, "blob", o.Desc.Digest, "layer", diffID, "error", err)
			continue
		}
		return o, true
	}
	return Origin{}, false
}

// claimed lists the blobs that the base images name for a layer, each once and in
// the order of the images' names.
func (im *Images) claimed(diffID digest.Digest) []Origin {
	im.mu.Lock()
	defer im.mu.Unlock()
	var list []Origin
	for _, b := range im.known {
		if o, ok := im.originIn(b, diffID); ok {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b Origin) int {
		return cmp.Or(strings.Compare(a.ref, b.ref), strings.Compare(a.Desc.Digest.String(), b.Desc.Digest.String()))
	})
	return slices.CompactFunc(list, func(a, b Origin) bool { return a.ref == b.ref && a.Desc.Digest == b.Desc.Digest })
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
	diffIDs, err := storage.DiffIDs(b.config)
	var manifest ocispec.Manifest
	if err != nil || json.Unmarshal(data, &manifest) != nil || len(diffIDs) != len(manifest.Layers) {
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
	for i, id := range diffIDs {
		desc := manifest.Layers[i]
		if id != diffID || desc.Digest.Validate() != nil || desc.Size < 0 {
			continue
		}
		// What was built here and never published is not compressed.
		if b.imageID == "" || desc.Digest != diffID {
			return Origin{Desc: desc, ref: exact.String(), from: im}, true
		}
	}
	return Origin{}, false
}
