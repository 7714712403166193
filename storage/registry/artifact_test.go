package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage/registry"
	"github.com/shale-build/shale/storage/storetest"
)

const artifactType = "application/vnd.test.config.v1+json"

// artifact returns a manifest with one layer that contains content.
func artifact(t *testing.T, content string) registry.Prepared {
	t.Helper()
	config, layer := []byte(`{"about":"`+content+`"}`), []byte(content)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: artifactType, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromBytes(layer), Size: int64(len(layer))}},
	}
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return registry.Prepared{
		Manifest: data, MediaType: m.MediaType,
		Open: func(d digest.Digest) (io.ReadCloser, int64, error) {
			for _, blob := range [][]byte{config, layer} {
				if digest.FromBytes(blob) == d {
					return io.NopCloser(bytes.NewReader(blob)), int64(len(blob)), nil
				}
			}
			return nil, 0, errors.New("no such blob")
		},
	}
}

func TestTagAfterCheck(t *testing.T) {
	server := serve(t, "")
	c := client(t, storetest.Open(t, storetest.NewRoots(t)), nil)
	name := server.addr + "/cache/app:main"
	if _, err := c.Digest(t.Context(), name); !errors.Is(err, registry.ErrNotFound) {
		t.Fatalf("a name that is not there: %v, want ErrNotFound", err)
	}
	for _, content := range []string{"first", "second"} {
		src, checks := artifact(t, content), 0
		check := func(context.Context) error { checks++; return nil }
		if err := c.PushPrepared(t.Context(), src, name, registry.PreparedOptions{Check: check}); err != nil {
			t.Fatal(err)
		}
		if got, err := c.Digest(t.Context(), name); err != nil || got != digest.FromBytes(src.Manifest) || checks != 1 {
			t.Errorf("%s: the name stands for %s after %d checks, %v", content, got, checks, err)
		}
	}
	before, err := c.Digest(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	moved := errors.New("moved")
	refused := artifact(t, "third")
	err = c.PushPrepared(t.Context(), refused, name, registry.PreparedOptions{Check: func(context.Context) error { return moved }})
	if !errors.Is(err, moved) {
		t.Errorf("error %v, want that of the check", err)
	}
	if got, err := c.Digest(t.Context(), name); err != nil || got != before {
		t.Errorf("the name stands for %s, %v, want %s", got, err, before)
	}
	// Everything but the tag has been pushed.
	if _, err := c.OpenArtifact(t.Context(), server.addr+"/cache/app@"+digest.FromBytes(refused.Manifest).String(), amd64); err != nil {
		t.Error(err)
	}
}

func TestLayoutWrite(t *testing.T) {
	c := client(t, storetest.Open(t, storetest.NewRoots(t)), nil)
	dir := filepath.Join(t.TempDir(), "new", "layout")
	l, err := c.OpenLayout(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.OpenLayout(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("opened twice: %v", err)
	}
	write := func(content, tag string) {
		t.Helper()
		src := artifact(t, content)
		if err := l.Write(t.Context(), src, tag, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Digest(tag); err != nil || got != digest.FromBytes(src.Manifest) {
			t.Errorf("%s stands for %s, %v", tag, got, err)
		}
	}
	write("old", "main")
	write("other", "other")
	write("new", "main")
	if got, err := l.Digest("none"); err != nil || got != "" {
		t.Errorf("a tag that is not there stands for %q, %v", got, err)
	}
	stray := filepath.Join(dir, "blobs", "sha256", digest.FromString("stray").Encoded())
	foreign := filepath.Join(dir, "blobs", "sha256", "not-a-digest")
	for _, f := range []string{stray, foreign} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int {
		files, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	// The first sweep finds no old object. Unused blobs are removed by each of the
	// others, manifests without a tag only if their config has that type.
	sweep := func(configType string, after time.Time) int {
		t.Helper()
		if err := l.Sweep(t.Context(), configType, after); err != nil {
			t.Fatal(err)
		}
		return count()
	}
	var got []int
	got = append(got, sweep(artifactType, time.Now().Add(-time.Hour)), sweep("other", time.Now().Add(time.Hour)), sweep(artifactType, time.Now().Add(time.Hour)))
	if diff := cmp.Diff([]int{11, 10, 7}, got); diff != "" {
		t.Errorf("files after each sweep (-want +got):\n%s", diff)
	}
	for _, f := range []string{stray, foreign} {
		if _, err := os.Stat(f); (err == nil) != (f == foreign) {
			t.Errorf("%s: %v", f, err)
		}
	}
	for _, tag := range []string{"main", "other"} {
		if _, err := c.OpenArtifactLayout(t.Context(), dir+":"+tag, amd64); err != nil {
			t.Errorf("%s was damaged: %v", tag, err)
		}
	}
	// If a manifest cannot be read, no blob is removed.
	main, err := l.Digest("main")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", main.Encoded()), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Sweep(t.Context(), artifactType, time.Now().Add(time.Hour)); err == nil || count() != 7 {
		t.Errorf("swept with a damaged manifest: %v, %d files", err, count())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := c.OpenLayout(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
