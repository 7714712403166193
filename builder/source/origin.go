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

// Origin is a layer in the registry that its image was pulled from.
type Origin struct {
	Desc ocispec.Descriptor
	ref  string
	from *Images
}

// Open fetches the layer's blob. The caller must verify its digest and close it.
func (o Origin) Open(ctx context.Context) (io.ReadCloser, error) {
	return o.from.registry.Blob(ctx, o.ref, o.Desc)
}

// Origin returns the published blob of a layer, if one of the base images of this build
// has it. Two images may list the same diffID with different blobs. So the blob is only
// used if it was verified on this machine that it contains the layer.
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

// claimed returns the blobs that the base images list for a layer, without duplicates,
// sorted by the names of the images.
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
		// If the blob is not compressed, the layer was built here and not published.
		if b.imageID == "" || desc.Digest != diffID {
			return Origin{Desc: desc, ref: exact.String(), from: im}, true
		}
	}
	return Origin{}, false
}
