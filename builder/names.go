package builder

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"

	"github.com/shale-build/shale/builder/frontend"
)

// storeName returns the name that an image built as tag has in the store. Like podman and
// buildah, it turns a name without a registry into localhost/NAME, so that the name is
// never mistaken for that of a pulled image.
func storeName(tag string) (string, error) {
	named, err := parseTag(tag)
	if err != nil {
		return "", err
	}
	if HasRegistry(tag) {
		return named.String(), nil
	}
	return "localhost/" + strings.TrimPrefix(strings.TrimPrefix(named.String(), "docker.io/"), "library/"), nil
}

// registryName returns the complete name of tag by docker's rules. The registry is
// docker.io if the tag has none.
func registryName(tag string) (string, error) {
	named, err := parseTag(tag)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

func parseTag(tag string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(tag)
	if err != nil {
		return nil, fmt.Errorf("invalid tag %q: %w", tag, err)
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, fmt.Errorf("invalid tag %q: a digest cannot be chosen for an image that is yet to be built", tag)
	}
	return reference.TagNameOnly(named), nil
}

// withoutTag returns the repository of a complete name.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}

// HasRegistry reports whether a name begins with a host, by docker's rule.
func HasRegistry(name string) bool { return frontend.HasRegistry(name) }
