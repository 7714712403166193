package export

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage/blobs"
)

// annotationImageName is the annotation in which containerd and docker keep the name of
// an image in index.json. OCI's own annotation has only the tag.
const annotationImageName = "io.containerd.image.name"

// Descriptor returns the root of img as an archive or a layout lists it. It has the
// creation time of the image, or the current time if that is unknown.
func (img *Image) Descriptor() ocispec.Descriptor {
	desc := img.Root
	desc.Annotations = maps.Clone(desc.Annotations)
	if desc.Annotations == nil {
		desc.Annotations = map[string]string{}
	}
	if _, ok := desc.Annotations[ocispec.AnnotationCreated]; !ok {
		at := time.Now()
		if t := img.Created(); t != nil {
			at = *t
		}
		desc.Annotations[ocispec.AnnotationCreated] = at.UTC().Format(time.RFC3339)
	}
	return desc
}

// named returns the entries of index.json, one for each complete name.
func named(desc ocispec.Descriptor, names []string) []ocispec.Descriptor {
	if len(names) == 0 {
		return []ocispec.Descriptor{desc}
	}
	list := make([]ocispec.Descriptor, len(names))
	for i, name := range names {
		list[i] = desc
		list[i].Annotations = maps.Clone(desc.Annotations)
		list[i].Annotations[annotationImageName] = name
		list[i].Annotations[ocispec.AnnotationRefName] = tagOf(name)
	}
	return list
}

func tagOf(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	if tagged, ok := reference.TagNameOnly(ref).(reference.Tagged); ok {
		return tagged.Tag()
	}
	return name
}

func indexJSON(entries []ocispec.Descriptor) ([]byte, error) {
	data, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: entries,
	})
	if err != nil {
		return nil, fmt.Errorf("write index.json: %w", err)
	}
	return data, nil
}

// Layout completes an OCI layout, to which the layers of img must have been written. It
// keeps images of other names and existing blobs. It replaces index.json last and holds
// BuildKit's lock meanwhile.
func Layout(ctx context.Context, l *blobs.Layout, img *Image, names []string) error {
	for _, p := range img.Parts() {
		if err := p.write(ctx, l); err != nil {
			return err
		}
	}
	entries := named(img.Descriptor(), names)
	if len(names) == 0 {
		// In a layout, an image without a name gets the tag latest.
		entries[0].Annotations[ocispec.AnnotationRefName] = "latest"
	}
	return AddToLayout(ctx, l, entries)
}

// AddToLayout adds entries to index.json. They replace entries of the same names.
func AddToLayout(ctx context.Context, l *blobs.Layout, entries []ocispec.Descriptor) error {
	return l.ChangeIndex(ctx, func(index *ocispec.Index) {
		for _, e := range entries {
			index.Manifests = append(without(index.Manifests, e), e)
		}
	})
}

func without(list []ocispec.Descriptor, e ocispec.Descriptor) (kept []ocispec.Descriptor) {
	for _, old := range list {
		if old.Annotations[annotationImageName] != e.Annotations[annotationImageName] ||
			old.Annotations[ocispec.AnnotationRefName] != e.Annotations[ocispec.AnnotationRefName] {
			kept = append(kept, old)
		}
	}
	return kept
}
