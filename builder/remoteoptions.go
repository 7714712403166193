package builder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/go-units"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/storage/registry"
)

// CacheImport is one value of --cache-from.
type CacheImport struct {
	// Type is registry or local.
	Type string
	// Attrs are the key=value pairs: ref= for a registry; src=, tag= and digest= for a
	// directory. For both, max-age= is the maximum age of the steps whose results are
	// used, and mounts= selects the cache mounts to restore.
	Attrs map[string]string
}

// CacheExport is one value of --cache-to.
type CacheExport struct {
	// Type is registry, local or inline.
	Type string
	// Attrs are the remaining key=value pairs.
	Attrs map[string]string
}

// Default limits of an exported cache.
const (
	cacheMaxAge  = 30 * 24 * time.Hour
	cacheMaxSize = 10 << 30
)

// cacheTarget is a parsed CacheExport.
type cacheTarget struct {
	CacheExport
	// where is a name at a registry, or a directory. tag is the tag in the directory.
	where, tag string
	// max exports all steps of the build, instead of only those of the result.
	// ignoreError makes errors of the export warnings.
	max, ignoreError bool
	// onSuccess leaves the cache unchanged if the build fails.
	onSuccess   bool
	compression export.Compression
	maxAge      time.Duration
	maxSize     int64
	mounts      mountChoice
}

func (t cacheTarget) title() string {
	if t.Type == "local" {
		return "exporting cache to client directory"
	}
	return "exporting cache to " + t.Type
}

// readCacheExports parses all values of --cache-to.
func readCacheExports(list []CacheExport) ([]cacheTarget, error) {
	var targets []cacheTarget
	for _, e := range list {
		t, err := readCacheExport(e)
		if err != nil {
			return nil, fmt.Errorf("cache export type %s: %w", e.Type, err)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func readCacheExport(e CacheExport) (t cacheTarget, err error) {
	t = cacheTarget{CacheExport: e, maxAge: cacheMaxAge, maxSize: cacheMaxSize}
	rest := maps.Clone(e.Attrs)
	take := func(name string) string {
		v := rest[name]
		delete(rest, name)
		return v
	}
	switch e.Type {
	case "registry":
		if t.where, err = cacheName(take("ref")); err != nil {
			return t, err
		}
	case "local":
		if t.where = take("dest"); t.where == "" {
			return t, errors.New("it needs dest=DIRECTORY")
		}
		if t.tag = take("tag"); t.tag == "" {
			t.tag = "latest"
		}
	case "inline":
	default:
		return t, errors.New("not known: use registry, local or inline")
	}
	switch mode := take("mode"); mode {
	case "", "min":
	case "max":
		if e.Type == "inline" {
			return t, errors.New("an image has room for mode=min only")
		}
		t.max = true
	default:
		return t, fmt.Errorf("mode %q is not known: use min or max", mode)
	}
	if t.onSuccess, err = readOn(e.Type, take("on")); err != nil {
		return t, err
	}
	if err := readFlag(rest, "ignore-error", &t.ignoreError); err != nil {
		return t, err
	}
	if t.compression, err = export.ParseCompression(rest); err != nil {
		return t, err
	}
	if v := take("max-age"); v != "" {
		if t.maxAge, err = time.ParseDuration(v); err != nil {
			return t, fmt.Errorf("max-age %q is no duration such as 720h", v)
		}
	}
	if v := take("max-size"); v != "" {
		if t.maxSize, err = units.RAMInBytes(v); err != nil {
			return t, fmt.Errorf("max-size %q is no size such as 10g", v)
		}
	}
	if t.mounts, err = readMounts(take("mounts"), false); err != nil {
		return t, err
	}
	if e.Type == "inline" && !t.mounts.none() {
		return t, errors.New("an image has no room for cache mounts: use registry or local")
	}
	// These options are accepted, but only true is possible. Then delete the options that
	// ParseCompression has read.
	for _, name := range []string{"oci-mediatypes", "image-manifest"} {
		always := true
		if err := readFlag(rest, name, &always); err != nil {
			return t, err
		}
		if !always {
			return t, fmt.Errorf("%s=false is not possible: a cache is an OCI image manifest", name)
		}
	}
	for _, name := range []string{"compression", "compression-level", "force-compression"} {
		delete(rest, name)
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		return t, fmt.Errorf("option %q is not known", name)
	}
	return t, nil
}

// readOn parses on=always|success. A failed build has no image, so an inline cache can be
// exported only on success.
func readOn(kind, text string) (success bool, err error) {
	switch text {
	case "":
		return kind == "inline", nil
	case "success":
		return true, nil
	case "always":
		if kind == "inline" {
			return false, errors.New("on=always is not possible: there is no image of a build that fails")
		}
		return false, nil
	}
	return false, fmt.Errorf("on %q is not known: use always or success", text)
}

// cacheName returns the complete name of a cache at a registry.
func cacheName(ref string) (string, error) {
	if ref == "" {
		return "", errors.New("it needs ref=NAME")
	}
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("invalid ref %q: %w", ref, err)
	}
	return reference.TagNameOnly(named).String(), nil
}

// cacheSource is a parsed CacheImport.
type cacheSource struct {
	name string
	// mounts are the cache mounts to restore from this cache.
	mounts mountChoice
	// maxAge is the maximum time since a step ran, 0 for no limit.
	maxAge time.Duration
	open   func(ctx context.Context, c *registry.Client) (*registry.Artifact, error)
}

func readCacheImports(list []CacheImport) ([]cacheSource, error) {
	var sources []cacheSource
	for _, i := range list {
		s, err := readCacheImport(i)
		if err != nil {
			return nil, fmt.Errorf("cache import type %s: %w", i.Type, err)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func readCacheImport(i CacheImport) (cacheSource, error) {
	known := []string{"ref", "mounts", "max-age"}
	var s cacheSource
	var err error
	if s.mounts, err = readMounts(i.Attrs["mounts"], true); err != nil {
		return s, err
	}
	if v := i.Attrs["max-age"]; v != "" {
		if s.maxAge, err = time.ParseDuration(v); err != nil || s.maxAge <= 0 {
			return s, fmt.Errorf("max-age %q is no duration such as 720h", v)
		}
	}
	switch i.Type {
	case "registry":
		name, err := cacheName(i.Attrs["ref"])
		if err != nil {
			return s, err
		}
		s.name = i.Attrs["ref"]
		s.open = func(ctx context.Context, c *registry.Client) (*registry.Artifact, error) {
			return c.OpenArtifact(ctx, name, platforms.DefaultSpec())
		}
	case "local":
		known = []string{"src", "tag", "digest", "mounts", "max-age"}
		where := i.Attrs["src"]
		if where == "" {
			return s, errors.New("it needs src=DIRECTORY")
		}
		if tag := i.Attrs["tag"]; tag != "" {
			where += ":" + tag
		}
		if dgst := i.Attrs["digest"]; dgst != "" {
			where += "@" + dgst
		}
		s.name = where
		s.open = func(ctx context.Context, c *registry.Client) (*registry.Artifact, error) {
			return c.OpenArtifactLayout(ctx, where, platforms.DefaultSpec())
		}
	default:
		return s, errors.New("not known: use registry or local")
	}
	for _, name := range slices.Sorted(maps.Keys(i.Attrs)) {
		if !slices.Contains(known, name) {
			return s, fmt.Errorf("option %q is not known", name)
		}
	}
	return s, nil
}

// openRemotes parses the values of --cache-from and --cache-to.
func openRemotes(opts Options) (sources []cacheSource, targets []cacheTarget, err error) {
	if sources, err = readCacheImports(opts.CacheFrom); err != nil {
		return nil, nil, &frontend.InputError{Err: err}
	}
	if targets, err = readCacheExports(opts.CacheTo); err != nil {
		return nil, nil, &frontend.InputError{Err: err}
	}
	return sources, targets, nil
}
