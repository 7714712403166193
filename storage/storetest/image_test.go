package storetest_test

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

// spec describes an image with layers. A different note gives a different config.
func spec(t *testing.T, note string, layers []storage.Layer, names ...string) storage.ImageSpec {
	t.Helper()
	config := ocispec.Image{
		Author: note, Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Config: ocispec.ImageConfig{Cmd: []string{"/bin/busybox", "cat", "/note"}},
		RootFS: ocispec.RootFS{Type: "layers"},
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{},
	}
	top := ""
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.DiffID)
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID, Size: l.Size})
		top = l.ID
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(data), Size: int64(len(data))}
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return storage.ImageSpec{Config: data, Manifest: manifest, TopLayer: top, Names: names}
}

func image(t *testing.T, s *storage.Store, spec storage.ImageSpec) storage.Image {
	t.Helper()
	img, err := s.CreateImage(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestImage(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	l := create(t, s, "", file("a", "1"))
	sp := spec(t, "one", []storage.Layer{l}, "localhost/app:1", "localhost/app:latest")
	img := image(t, s, sp)
	if want := digest.FromBytes(sp.Config).Encoded(); img.ID != want || img.TopLayer != l.ID || img.Digest != digest.FromBytes(sp.Manifest) {
		t.Errorf("image = %+v, want ID %s", img, want)
	}
	for _, name := range []string{
		"localhost/app:1", "localhost/app:latest", img.ID, img.ID[:12], "sha256:" + img.ID,
		"localhost/app@" + img.Digest.String(),
	} {
		found, err := s.Image(name)
		if err != nil || !cmp.Equal(found, img) {
			t.Errorf("Image(%s) = %+v, %v", name, found, err)
		}
	}
	for _, name := range []string{"localhost/app:2", "other", "ffff", "", "localhost/other@" + img.Digest.String(), "localhost/app@" + digest.FromString("x").String()} {
		if _, err := s.Image(name); !errors.Is(err, storage.ErrImageUnknown) {
			t.Errorf("Image(%q): %v, want ErrImageUnknown", name, err)
		}
	}
	config, err := s.ImageConfig(img.ID)
	if err != nil || string(config) != string(sp.Config) {
		t.Errorf("config = %s, %v", config, err)
	}
	manifest, err := s.ImageManifest("localhost/app:1")
	if err != nil || string(manifest) != string(sp.Manifest) {
		t.Errorf("manifest = %s, %v", manifest, err)
	}
}

func TestImageNamesMove(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	l := create(t, s, "", file("a", "1"))
	one := image(t, s, spec(t, "one", []storage.Layer{l}, "localhost/app:1"))
	two := image(t, s, spec(t, "two", []storage.Layer{l}, "localhost/app:1"))
	again := image(t, s, spec(t, "two", []storage.Layer{l}, "localhost/app:2"))
	if again.ID != two.ID || len(again.Names) != 2 {
		t.Errorf("the same image again = %+v", again)
	}
	old, err := s.Image(one.ID)
	if err != nil || len(old.Names) != 0 {
		t.Errorf("old image = %+v, %v", old, err)
	}
	if err := s.AddNames(one.ID, "localhost/app:2"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveNames(two.ID, "localhost/app:1", "localhost/never:1"); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Image("localhost/app:2"); err != nil || img.ID != one.ID {
		t.Errorf("app:2 = %+v, %v", img, err)
	}
	if _, err := s.Image("localhost/app:1"); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("app:1: %v", err)
	}
}

// A build without changes must not write the record of images, so it must not wait for
// the disk.
func TestImageNamedAlready(t *testing.T) {
	roots := storetest.NewRoots(t)
	s := storetest.Open(t, roots)
	l := create(t, s, "", file("a", "1"))
	one := image(t, s, spec(t, "one", []storage.Layer{l}, "localhost/app:1", "localhost/app:2"))
	record := filepath.Join(roots.Graph, "overlay-images", "images.json")
	before, err := os.Stat(record)
	if err != nil {
		t.Fatal(err)
	}
	image(t, s, spec(t, "one", []storage.Layer{l}, "localhost/app:2"))
	if err := s.AddNames(one.ID, "localhost/app:2", "localhost/app:1"); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(record)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the record of images was replaced: %v", err)
	}
	if err := s.AddNames(one.ID, "localhost/app:2", "localhost/app:3"); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Image("localhost/app:3"); err != nil || img.ID != one.ID || len(img.Names) != 3 {
		t.Errorf("app:3 = %+v, %v", img, err)
	}
}

func TestImageAmbiguous(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	seen := map[byte]bool{}
	for i := range 17 { // of 17 IDs, two begin with the same digit
		img := image(t, s, spec(t, strings.Repeat("x", i), nil))
		if seen[img.ID[0]] {
			if _, err := s.Image(img.ID[:1]); !errors.Is(err, storage.ErrAmbiguousID) {
				t.Errorf("error = %v, want ErrAmbiguousID", err)
			}
			return
		}
		seen[img.ID[0]] = true
	}
}

func TestCreateImageRefuses(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	l := create(t, s, "", file("a", "1"))
	good := spec(t, "one", []storage.Layer{l})
	tests := map[string]func(*storage.ImageSpec){
		"no manifest":    func(s *storage.ImageSpec) { s.Manifest = nil },
		"other config":   func(s *storage.ImageSpec) { s.Config = []byte("{}") },
		"unknown layer":  func(s *storage.ImageSpec) { s.TopLayer = "nope" },
		"manifest trash": func(s *storage.ImageSpec) { s.Manifest = []byte("[") },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			bad := good
			spoil(&bad)
			if img, err := s.CreateImage(t.Context(), bad); err == nil {
				t.Errorf("recorded %+v", img)
			}
		})
	}
	if images, err := s.Images(); err != nil || len(images) != 0 {
		t.Errorf("images = %+v, %v", images, err)
	}
}

func TestRemoveImage(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	base := create(t, s, "", file("a", "1"))
	top := create(t, s, base.ID, file("b", "2"))
	one := image(t, s, spec(t, "one", []storage.Layer{base}, "localhost/base:1"))
	two := image(t, s, spec(t, "two", []storage.Layer{base, top}, "localhost/top:1"))
	gone, err := s.RemoveImage("localhost/top:1", storage.Removal{})
	if err != nil || !cmp.Equal(gone, []string{top.ID}) {
		t.Errorf("removed %v, %v, want %s", gone, err, top.ID)
	}
	if _, err := s.RemoveImage(two.ID, storage.Removal{}); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("again: %v", err)
	}
	if err := s.DeleteLayer(base.ID); !errors.Is(err, storage.ErrLayerInUse) {
		t.Errorf("delete layer of an image: %v", err)
	}
	images, err := s.Images()
	if err != nil || len(images) != 1 || images[0].ID != one.ID {
		t.Errorf("images = %+v, %v", images, err)
	}
}

// Programs that remove images without names must never see an image before it gets its
// name. This is also true if another image had that name before.
func TestNamedFromTheBeginning(t *testing.T) {
	roots := storetest.NewRoots(t)
	s, other := storetest.Open(t, roots), storetest.Open(t, roots)
	var made atomic.Pointer[string]
	stop := make(chan struct{})
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		for {
			select {
			case <-stop:
				return
			default:
			}
			id := made.Load()
			images, err := other.Library().Images() // with interim names, as other programs see them
			if err != nil {
				t.Error(err)
				return
			}
			for _, img := range images {
				if id != nil && made.Load() == id && img.ID == *id && len(img.Names) == 0 {
					t.Errorf("image %s has no name", img.ID)
				}
			}
		}
	}()
	const name = "localhost/app:latest"
	for i := range 40 {
		sp := spec(t, strconv.Itoa(i), nil, name)
		id := digest.FromBytes(sp.Config).Encoded()
		made.Store(&id)
		if img := image(t, s, sp); !slices.Equal(img.Names, []string{name}) {
			t.Errorf("names = %q", img.Names)
		}
		made.Store(nil)
	}
	close(stop)
	<-looked
}

// tool runs podman or another tool on the store of s, in the same namespaces.
func tool(t *testing.T, s *storage.Store, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("SHALE_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if name != "skopeo" && name != "umoci" {
		args = append([]string{"--root", s.GraphRoot(), "--runroot", s.RunRoot(), "--storage-driver", "overlay"}, args...)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestForeignTools checks that older releases of the tools can read the store.
func TestForeignTools(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	base := create(t, s, "", storetest.Fill(func(upper string) error {
		dirs := []error{}
		for _, d := range []string{"bin", "etc", "proc", "dev", "sys", "tmp", "run"} {
			dirs = append(dirs, os.Mkdir(filepath.Join(upper, d), 0o755))
		}
		return errors.Join(append(dirs, os.WriteFile(filepath.Join(upper, "bin/busybox"), busybox, 0o755))...)
	}))
	top := create(t, s, base.ID, file("note", "noted"))
	layers := []storage.Layer{base, top}
	img := image(t, s, spec(t, "one", layers, "localhost/app:1"))
	const name = "localhost/app:1"

	t.Run("podman images", func(t *testing.T) {
		if out := tool(t, s, "podman", "images", "--no-trunc"); !strings.Contains(out, img.ID) {
			t.Errorf("podman images:\n%s", out)
		}
	})
	t.Run("podman check", func(t *testing.T) {
		if out := tool(t, s, "podman", "image", "inspect", "--format", "{{.RootFS.Layers}}", name); !strings.Contains(out, top.DiffID.String()) {
			t.Errorf("podman image inspect:\n%s", out)
		}
	})
	// To run a container also needs a runtime that works with the machine's cgroups, so
	// the test only creates one.
	t.Run("podman create", func(t *testing.T) {
		container := strings.TrimSpace(tool(t, s, "podman", "create", "--pull=never", "--network=none", name))
		dir := strings.TrimSpace(tool(t, s, "podman", "mount", container))
		if data, err := os.ReadFile(filepath.Join(dir, "note")); err != nil || string(data) != "noted" {
			t.Errorf("note = %q, %v", data, err)
		}
		tool(t, s, "podman", "rm", "-f", container)
	})
	t.Run("buildah from", func(t *testing.T) {
		container := strings.TrimSpace(tool(t, s, "buildah", "from", "--pull-never", name))
		if _, err := s.RemoveImage(name, storage.Removal{}); !errors.Is(err, storage.ErrImageInUse) {
			t.Errorf("remove image of a container: %v, want ErrImageInUse", err)
		}
		dir := strings.TrimSpace(tool(t, s, "buildah", "mount", container))
		if data, err := os.ReadFile(filepath.Join(dir, "note")); err != nil || string(data) != "noted" {
			t.Errorf("note = %q, %v", data, err)
		}
		tool(t, s, "buildah", "rm", container)
	})
	t.Run("skopeo and umoci", func(t *testing.T) {
		dir := t.TempDir()
		oci := filepath.Join(dir, "oci")
		tool(t, s, "skopeo", "copy", "-q", "containers-storage:[overlay@"+s.GraphRoot()+"+"+s.RunRoot()+"]"+name, "oci:"+oci+":1")
		tool(t, s, "umoci", "unpack", "--image", oci+":1", filepath.Join(dir, "bundle"))
		if data, err := os.ReadFile(filepath.Join(dir, "bundle/rootfs/note")); err != nil || string(data) != "noted" {
			t.Errorf("note = %q, %v", data, err)
		}
	})
	t.Run("the store afterwards", func(t *testing.T) {
		all, err := s.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			if !slices.ContainsFunc(all, func(o storage.Layer) bool { return o.ID == l.ID }) {
				t.Errorf("layer %s is gone", l.ID)
			}
			if _, err := readDiff(s, l.ID); err != nil {
				t.Error(err)
			}
		}
	})
}
