package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tonistiigi/go-csvvalue"

	"github.com/shale-build/shale/builder"
)

// parseCacheFrom reads the values of --cache-from.
func parseCacheFrom(values []string) ([]builder.CacheImport, error) {
	var list []builder.CacheImport
	for _, v := range values {
		kind, attrs, err := parseCache(v)
		if err != nil {
			return nil, fmt.Errorf("invalid --cache-from %q: %w", v, err)
		}
		list = append(list, builder.CacheImport{Type: kind, Attrs: attrs})
	}
	return list, nil
}

// parseCacheTo reads the values of --cache-to.
func parseCacheTo(values []string) ([]builder.CacheExport, error) {
	var list []builder.CacheExport
	for _, v := range values {
		kind, attrs, err := parseCache(v)
		if err != nil {
			return nil, fmt.Errorf("invalid --cache-to %q: %w", v, err)
		}
		list = append(list, builder.CacheExport{Type: kind, Attrs: attrs})
	}
	return list, nil
}

// parseCache reads type=TYPE[,KEY=VALUE], or the bare name of a cache at a
// registry, as docker does.
func parseCache(value string) (kind string, attrs map[string]string, err error) {
	if !strings.Contains(value, "=") && value != "inline" {
		return "registry", map[string]string{"ref": value}, nil
	}
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return "", nil, err
	}
	attrs = map[string]string{}
	for _, field := range fields {
		key, v, found := strings.Cut(field, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		switch {
		case field == "inline" && len(fields) == 1:
			kind = "inline"
		case !found || key == "":
			return "", nil, fmt.Errorf("%q is not of the form KEY=VALUE", field)
		case key == "type":
			kind = v
		default:
			attrs[key] = v
		}
	}
	switch kind {
	case "":
		return "", nil, errors.New("type is required")
	}
	if instead, ok := elsewhere[kind]; ok {
		return "", nil, fmt.Errorf("type %s is not available: %s", kind, instead)
	}
	return kind, attrs, nil
}

// elsewhere are buildx's types for which there is another way here.
var elsewhere = map[string]string{
	"gha":    "use type=registry with ghcr.io, or type=local with a directory that actions/cache keeps",
	"s3":     "use type=registry, or type=local with a directory that you copy to and from the bucket",
	"azblob": "use type=registry, or type=local with a directory that you copy to and from the container",
}
