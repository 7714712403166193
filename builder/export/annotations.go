package export

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Annotations are the annotations that the options of one output ask for.
type Annotations []annotation

type annotation struct {
	exptypes.AnnotationKey
	value string
}

// parseAnnotations returns the annotations in the attributes of an output, and the other
// attributes. If an annotation has a value for all platforms and a value for one
// platform, that platform gets the second value.
func parseAnnotations(attrs map[string]string) (Annotations, map[string]string, error) {
	var list Annotations
	rest := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		key, ok, err := exptypes.ParseAnnotationKey(name)
		if err != nil {
			return nil, nil, fmt.Errorf("option %s: %w", name, err)
		}
		if !ok {
			rest[name] = attrs[name]
			continue
		}
		list = append(list, annotation{key, attrs[name]})
	}
	slices.SortStableFunc(list, func(a, b annotation) int { return len(a.PlatformString()) - len(b.PlatformString()) })
	return list, rest, nil
}

// check returns an error if the annotations do not fit b or the media types of docker.
func (a Annotations) check(b Build, docker bool) error {
	for _, x := range a {
		if p := x.PlatformString(); p != "" && b.Multi && !b.find(p) {
			return fmt.Errorf("invalid annotation: no platform %s found in source", p)
		}
		index := x.Type == exptypes.AnnotationIndex || x.Type == exptypes.AnnotationIndexDescriptor
		if docker && x.Type != exptypes.AnnotationManifest {
			return errors.New(`cannot export annotations with "oci-mediatypes=false"`)
		}
		if index && !b.Multi {
			return errors.New("index annotations not supported for single platform export")
		}
	}
	return nil
}

// of returns the annotations of one kind for a platform. A nil platform means that no
// platform is selected.
func (a Annotations) of(kind string, platform *ocispec.Platform) map[string]string {
	var out map[string]string
	for _, x := range a {
		if x.Type != kind {
			continue
		}
		// Annotations of an index do not belong to a platform.
		one := kind == exptypes.AnnotationManifest || kind == exptypes.AnnotationManifestDescriptor
		if p := x.PlatformString(); one && p != "" && (platform == nil || p != platforms.FormatAll(*platform)) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[x.Key] = x.value
	}
	return out
}
