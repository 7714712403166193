package cli

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/storage"
)

var update = flag.Bool("update", false, "rewrite the golden files and docs/cli.md")

// now is the current time in all tests.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", path, diff)
	}
}

// fakeStore is a store in memory.
type fakeStore struct {
	images  []storage.Image
	configs map[string]string
	layers  map[string][]storage.Layer
	inUse   string
}

var (
	appID   = strings.Repeat("a1", 32)
	baseID  = strings.Repeat("b2", 32)
	looseID = strings.Repeat("c3", 32)
)

func newFakeStore() *fakeStore {
	dgst := func(s string) digest.Digest { return digest.FromString(s) }
	base := storage.Layer{ID: "l0", DiffID: dgst("l0"), Size: 7_800_000}
	made := storage.Layer{ID: "l1", Parent: "l0", DiffID: dgst("l1"), Size: 1_234}
	loose := storage.Layer{ID: "l2", DiffID: dgst("l2"), Size: -1}
	return &fakeStore{
		images: []storage.Image{
			{ID: appID, Names: []string{"localhost/app:latest", "registry.example:5000/team/app:1.0"}, Digest: dgst("app"), TopLayer: "l1", Created: now.Add(-3 * time.Minute)},
			{ID: looseID, Digest: dgst("loose"), TopLayer: "l2", Created: now.Add(-2 * time.Hour)},
			{ID: baseID, Names: []string{"docker.io/library/base:3", "docker.io/library/base@" + dgst("index").String()}, Digest: dgst("base"), TopLayer: "l0", Created: now.Add(-60 * 24 * time.Hour)},
		},
		configs: map[string]string{
			appID: `{"created":"2026-06-01T11:57:00Z","author":"me","architecture":"amd64","os":"linux",
"config":{"Env":["PATH=/bin"],"Cmd":["/app","<&>"],"Labels":{"stage":"prod"},"Healthcheck":{"Test":["CMD","true"]},"OnBuild":["RUN true"]},
"rootfs":{"type":"layers","diff_ids":["` + dgst("l0").String() + `","` + dgst("l1").String() + `"]},
"history":[{"created":"2026-04-02T12:00:00Z","created_by":"ADD rootfs.tar / # buildkit","comment":"buildkit.dockerfile.v0"},
{"created":"2026-06-01T11:56:00Z","created_by":"ENV\tPATH=/bin","empty_layer":true},
{"created":"2026-06-01T11:57:00Z","created_by":"RUN /bin/sh -c make all install DESTDIR=/ && rm -rf /src # buildkit","comment":"buildkit.dockerfile.v0"}]}`,
			baseID:  `{"created":"2026-04-02T12:00:00Z","architecture":"arm64","variant":"v8","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["` + dgst("l0").String() + `"]}}`,
			looseID: `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":null}}`,
		},
		layers: map[string][]storage.Layer{"l0": {base}, "l1": {base, made}, "l2": {loose}},
	}
}

var _ imageStore = (*fakeStore)(nil)

func (s *fakeStore) Image(nameOrID string) (storage.Image, error) {
	var found []storage.Image
	for _, img := range s.images {
		if slices.Contains(img.Names, nameOrID) || strings.HasPrefix(img.ID, nameOrID) {
			found = append(found, img)
		}
	}
	switch len(found) {
	case 0:
		return storage.Image{}, storage.ErrImageUnknown
	case 1:
		return found[0], nil
	}
	return storage.Image{}, storage.ErrAmbiguousID
}

func (s *fakeStore) Images() ([]storage.Image, error) { return slices.Clone(s.images), nil }

func (s *fakeStore) ImageConfig(id string) ([]byte, error)       { return []byte(s.configs[id]), nil }
func (s *fakeStore) ContentSize(l storage.Layer) (int64, error)  { return max(0, l.Size), nil }
func (s *fakeStore) Chain(layer string) ([]storage.Layer, error) { return s.layers[layer], nil }
func (s *fakeStore) ImageManifest(string) ([]byte, error) {
	return []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","annotations":{"k":"v"}}`), nil
}

func (s *fakeStore) index(id string) int {
	return slices.IndexFunc(s.images, func(img storage.Image) bool { return img.ID == id })
}

func (s *fakeStore) AddNames(id string, names ...string) error {
	img := &s.images[s.index(id)]
	img.Names = append(slices.Clone(img.Names), names...)
	return nil
}

func (s *fakeStore) RemoveNames(id string, names ...string) error {
	img := &s.images[s.index(id)]
	img.Names = slices.DeleteFunc(slices.Clone(img.Names), func(n string) bool { return slices.Contains(names, n) })
	return nil
}

func (s *fakeStore) RemoveImage(id string, how storage.Removal) ([]string, error) {
	if id == s.inUse && !how.Held {
		return nil, storage.ErrImageInUse
	}
	if how.Still != nil && !how.Still(s.images[s.index(id)]) {
		return nil, storage.ErrImageChanged
	}
	top := s.images[s.index(id)].TopLayer
	s.images = slices.Delete(s.images, s.index(id), s.index(id)+1)
	return []string{top}, nil
}

// fakeCache is a build cache in memory.
type fakeCache struct {
	steps  []cache.Usage
	mounts []cachemount.Mount
	policy cache.Policy
	pruned bool
	free   int64
	// sourceUsed is the time when the only source was used. sourceGone is set if the
	// source was removed.
	sourceUsed time.Time
	sourceGone bool
}

var _ buildCache = (*fakeCache)(nil)

func newFakeCache() *fakeCache {
	return &fakeCache{
		steps: []cache.Usage{
			{Layer: strings.Repeat("d4", 32), Description: "[build 2/4] RUN go mod download", Size: 120_000_000, Created: now.Add(-48 * time.Hour), Used: now.Add(-24 * time.Hour), Shared: true},
			{Layer: strings.Repeat("e5", 32), Parent: strings.Repeat("d4", 32), Description: "[build 3/4] RUN go build ./... with a very long list of arguments", Size: 3_000_000, Created: now.Add(-time.Hour), Used: now.Add(-time.Minute)},
		},
		mounts: []cachemount.Mount{
			{Key: cachemount.Key(strings.Repeat("f6", 16)), ID: "/root/.cache/go-build", Used: now.Add(-time.Minute), Size: 55_000_000},
		},
	}
}

func (c *fakeCache) Steps() ([]cache.Usage, error) { return c.steps, nil }
func (c *fakeCache) PruneSteps(_ context.Context, policy cache.Policy) ([]cache.Usage, error) {
	c.policy, c.pruned = policy, true
	return c.steps, nil
}
func (c *fakeCache) Mounts() ([]cachemount.Mount, error) { return c.mounts, nil }

func (c *fakeCache) Sources() ([]shelf.Usage, error) {
	if c.sourceGone {
		return nil, nil
	}
	return []shelf.Usage{{Name: "0123456789abcdef", Size: 1234, Used: c.sourceUsed}}, nil
}

func (c *fakeCache) PruneSources(policy shelf.Policy) ([]shelf.Usage, error) {
	removed, err := c.Sources()
	if !usedBefore(c.sourceUsed, policy.Until) {
		return nil, err
	}
	c.sourceGone = true
	return removed, err
}

func (c *fakeCache) Free() (int64, error) { return c.free, nil }

func (c *fakeCache) RemoveMount(m cachemount.Mount) (bool, error) {
	if m.InUse {
		return false, nil
	}
	c.mounts = slices.DeleteFunc(slices.Clone(c.mounts), func(n cachemount.Mount) bool { return n == m })
	return true, nil
}
