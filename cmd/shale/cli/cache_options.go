package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/tonistiigi/go-csvvalue"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/exec"
)

// parseCacheFrom parses the values of --cache-from.
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

// parseCacheTo parses the values of --cache-to.
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

// parseCache parses type=TYPE[,KEY=VALUE]. It also accepts "inline", and the bare name
// of a cache in a registry, as docker does.
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

// elsewhere maps cache types of buildx that are not available to the alternative in
// shale.
var elsewhere = map[string]string{
	"gha":    "use type=registry with ghcr.io, or type=local with a directory that actions/cache keeps",
	"s3":     "use type=registry, or type=local with a directory that you copy to and from the bucket",
	"azblob": "use type=registry, or type=local with a directory that you copy to and from the container",
}

// parseGrace parses the value of --cache-grace.
func parseGrace(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("invalid --cache-grace %q: it is a time such as 20s", value)
	}
	return d, nil
}

// closeTime is the longest time that a build needs to end in order after the time for
// writing its caches is over.
const closeTime = 5 * time.Second

// allowExport gives the build time to write its caches after a signal that requests an
// orderly end. After any other signal, endTime applies.
func allowExport(ctx context.Context, opts builder.Options) {
	grace := opts.ExportTime()
	if grace == 0 {
		return
	}
	allowTime(ctx, func(s syscall.Signal) time.Duration {
		if !errors.Is(signalError{s}, exec.ErrTerminated) {
			return endTime
		}
		return max(endTime, grace+closeTime)
	})
}
