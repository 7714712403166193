package storetest_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

// index records an index with one image per architecture.
func index(t *testing.T, s *storage.Store, layers []storage.Layer, archs []string, names ...string) (storage.Image, []storage.Image) {
	t.Helper()
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	ids := map[digest.Digest]string{}
	var members []storage.Image
	for _, arch := range archs {
		one := spec(t, "for "+arch, layers)
		img := image(t, s, one)
		members = append(members, img)
		ids[img.Digest] = img.ID
		idx.Manifests = append(idx.Manifests, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: img.Digest, Size: int64(len(one.Manifest)),
			Platform: &ocispec.Platform{OS: "linux", Architecture: arch},
		})
	}
	data, err := json.Marshal(idx)
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.CreateIndex(t.Context(), storage.IndexSpec{Index: data, Images: ids, Names: names})
	if err != nil {
		t.Fatal(err)
	}
	return img, members
}

func two(t *testing.T, s *storage.Store) []storage.Layer {
	t.Helper()
	below := create(t, s, "", file("below", "1"))
	return []storage.Layer{below, create(t, s, below.ID, file("above", "2"))}
}

func TestIndex(t *testing.T) {
	r := storetest.NewRoots(t)
	s := storetest.Open(t, r)
	layers := two(t, s)
	const name = "localhost/many:latest"
	img, members := index(t, s, layers, []string{"s390x", "riscv64"}, name)
	if again, _ := index(t, s, layers, []string{"s390x", "riscv64"}, name); again.ID != img.ID {
		t.Errorf("the same index has the IDs %s and %s", img.ID, again.ID)
	}
	if !img.Index || img.ID != img.Digest.Encoded() || img.TopLayer != members[0].TopLayer {
		t.Errorf("the index is %+v", img)
	}
	for i, arch := range []string{"s390x", "riscv64"} {
		p := platforms.OnlyStrict(ocispec.Platform{OS: "linux", Architecture: arch})
		if got, err := s.ImageFor(name, p); err != nil || got.ID != members[i].ID {
			t.Errorf("for %s: %s, %v, want %s", arch, got.ID, err, members[i].ID)
		}
	}
	if _, err := s.ImageFor(name, platforms.OnlyStrict(ocispec.Platform{OS: "linux", Architecture: "mips"})); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("for a platform it does not have: %v", err)
	}
	list, err := s.Instances(name)
	if err != nil || len(list) != 2 || list[1].ImageID != members[1].ID || list[1].Desc.Platform.Architecture != "riscv64" {
		t.Errorf("instances %+v, %v", list, err)
	}
	if _, err := s.Instances(members[0].ID); !errors.Is(err, storage.ErrNotAnIndex) {
		t.Errorf("instances of an image: %v", err)
	}
	all, err := s.Images()
	if err != nil || len(all) != 3 {
		t.Fatalf("%d images, %v", len(all), err)
	}
	for _, i := range all {
		if i.Dangling() || i.Member != (i.ID != img.ID) {
			t.Errorf("%s: dangling %v, member %v", i.ID, i.Dangling(), i.Member)
		}
	}
}

func TestRemoveIndex(t *testing.T) {
	r := storetest.NewRoots(t)
	s := storetest.Open(t, r)
	layers := two(t, s)
	img, members := index(t, s, layers, []string{"s390x", "riscv64"}, "localhost/many:latest")
	other, _ := index(t, s, layers, []string{"riscv64"}, "localhost/few:latest")
	if _, err := s.RemoveImage(img.ID, storage.Removal{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Image(members[0].ID); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("an image of the index alone: %v", err)
	}
	if _, err := s.Image(members[1].ID); err != nil {
		t.Errorf("an image that another index has: %v", err)
	}
	if err := s.AddNames(members[1].ID, "localhost/named:latest"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.RemoveImage(other.ID, storage.Removal{KeepLayers: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Image("localhost/named:latest"); err != nil {
		t.Errorf("an image with a name: %v", err)
	}
	if _, err := s.Layer(layers[len(layers)-1].ID); err != nil {
		t.Errorf("the layers of the other image: %v", err)
	}
}

func TestPodmanReadsIndex(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	img, members := index(t, s, two(t, s), []string{"s390x", "riscv64"}, "localhost/many:latest")
	out := tool(t, s, "podman", "manifest", "inspect", "localhost/many")
	for _, m := range members {
		if !strings.Contains(out, m.Digest.String()) {
			t.Errorf("podman manifest inspect does not show %s:\n%s", m.Digest, out)
		}
	}
	if out := tool(t, s, "podman", "images", "--no-trunc"); !strings.Contains(out, img.ID) {
		t.Errorf("podman images:\n%s", out)
	}
}
