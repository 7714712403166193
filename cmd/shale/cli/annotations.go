package cli

import (
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/containerd/platforms"

	"github.com/shale-build/shale/builder"
)

// annotationKinds are the objects to which --annotation can add an annotation.
var annotationKinds = map[string]bool{
	"manifest": true, "manifest-descriptor": true, "index": true, "index-descriptor": true,
}

var annotationKind = regexp.MustCompile(`^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`)

// addAnnotations adds the values of --annotation to the attributes of every output that
// writes an image. A value has the form [KIND[PLATFORM][,KIND…]:]KEY=VALUE. If there
// are annotations but no outputs, addAnnotations adds an output of type image.
func addAnnotations(exports []builder.Export, values []string) ([]builder.Export, error) {
	attrs := map[string]string{}
	for _, value := range values {
		if err := parseAnnotation(value, attrs); err != nil {
			return nil, err
		}
	}
	if len(attrs) == 0 {
		return exports, nil
	}
	if len(exports) == 0 {
		exports = []builder.Export{{Type: "image", Attrs: map[string]string{}}}
	}
	for _, e := range exports {
		if e.Type == "local" || e.Type == "tar" {
			continue
		}
		maps.Copy(e.Attrs, attrs)
	}
	return exports, nil
}

func parseAnnotation(value string, attrs map[string]string) error {
	key, text, found := strings.Cut(value, "=")
	if !found {
		return fmt.Errorf("invalid annotation %q, expected key=value", value)
	}
	kinds, name, found := strings.Cut(key, ":")
	if !found {
		attrs["annotation."+key] = text
		return nil
	}
	for kind := range strings.SplitSeq(kinds, ",") {
		groups := annotationKind.FindStringSubmatch(kind)
		if groups == nil {
			return fmt.Errorf("invalid annotation type %q, expected type and optional platform in square brackets", kind)
		}
		if !annotationKinds[groups[1]] {
			return fmt.Errorf("unknown annotation type %q", groups[1])
		}
		attr := "annotation-" + groups[1]
		// An index covers all platforms, so a platform has no effect on it.
		if groups[2] != "" && strings.HasPrefix(groups[1], "manifest") {
			p, err := platforms.Parse(groups[2])
			if err != nil {
				return fmt.Errorf("invalid platform %q in annotation %q", groups[2], value)
			}
			attr += "[" + platforms.FormatAll(p) + "]"
		}
		attrs[attr+"."+name] = text
	}
	return nil
}
