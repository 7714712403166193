package builder

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Media types of a docker schema 2 image (distribution,
// docs/content/spec/manifest-v2-2.md).
const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	mediaTypeDockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
)

// finishConfig completes the config that the front end wrote: the layers it
// could not know, and the times. Fields it knows nothing of are kept as they
// are.
func finishConfig(config []byte, layers []storage.Layer, created time.Time) ([]byte, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(config, &fields); err != nil {
		return nil, fmt.Errorf("read image config: %w", err)
	}
	var history []ocispec.History
	if raw, ok := fields["history"]; ok {
		if err := json.Unmarshal(raw, &history); err != nil {
			return nil, fmt.Errorf("read history of the image config: %w", err)
		}
	}
	for name, value := range map[string]any{
		"created": created,
		"history": finishHistory(history, layers, created),
		"rootfs":  ocispec.RootFS{Type: "layers", DiffIDs: diffIDs(layers)},
	} {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("write %s of the image config: %w", name, err)
		}
		fields[name] = raw
	}
	out, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("write image config: %w", err)
	}
	return out, nil
}

// finishHistory gives every entry a time and makes the entries that are not
// empty match the layers one to one, as tools that show both expect.
func finishHistory(history []ocispec.History, layers []storage.Layer, created time.Time) []ocispec.History {
	out := make([]ocispec.History, 0, len(history))
	next := 0
	for _, h := range history {
		if !h.EmptyLayer && next >= len(layers) {
			// A base whose history names more layers than it has.
			h.EmptyLayer = true
		}
		if h.Created == nil {
			at := created
			if !h.EmptyLayer && layers[next].Created.Before(at) {
				at = layers[next].Created.UTC()
			}
			h.Created = &at
		}
		if !h.EmptyLayer {
			next++
		}
		out = append(out, h)
	}
	for ; next < len(layers); next++ {
		at := created
		out = append(out, ocispec.History{Created: &at, Comment: "a layer without history"})
	}
	return out
}

func diffIDs(layers []storage.Layer) []digest.Digest {
	ids := make([]digest.Digest, len(layers))
	for i, l := range layers {
		ids[i] = l.DiffID
	}
	return ids
}

// manifestFor describes config and layers as they lie in the store:
// uncompressed. With docker it is a schema 2 manifest, else an OCI one.
func manifestFor(config []byte, layers []storage.Layer, docker bool, annotations map[string]string) ([]byte, error) {
	manifestType, configType, layerType := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageLayer
	if docker {
		manifestType, configType, layerType = mediaTypeDockerManifest, mediaTypeDockerConfig, mediaTypeDockerLayer
		annotations = nil // schema 2 has none
	}
	m := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   manifestType,
		Config:      ocispec.Descriptor{MediaType: configType, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers:      []ocispec.Descriptor{},
		Annotations: annotations,
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: layerType, Digest: l.DiffID, Size: l.Size})
	}
	out, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write manifest: %w", err)
	}
	return out, nil
}
