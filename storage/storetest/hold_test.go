package storetest_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

// neighbours returns one store that is opened twice, as if by two processes.
func neighbours(t *testing.T) (roots storetest.Roots, s, other *storage.Store) {
	t.Helper()
	roots = storetest.NewRoots(t)
	return roots, storetest.Open(t, roots), storetest.Open(t, roots)
}

func closeStore(t *testing.T, s *storage.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func layerExists(t *testing.T, s *storage.Store, l storage.Layer, want bool) {
	t.Helper()
	_, err := s.Layer(l.ID)
	if got := err == nil; got != want || err != nil && !errors.Is(err, storage.ErrLayerUnknown) {
		t.Errorf("layer %s exists: %v, %v; want %v", l.ID, got, err, want)
	}
}

func TestHeldImageStays(t *testing.T) {
	_, s, other := neighbours(t)
	base := create(t, s, "", file("a", "1"))
	img := image(t, s, spec(t, "one", []storage.Layer{base}, "localhost/base:1"))
	// The process that recorded the image and its layers holds them.
	if _, err := other.RemoveImage(img.ID, storage.Removal{}); !errors.Is(err, storage.ErrImageInUse) {
		t.Errorf("remove an image that is held: %v", err)
	}
	if _, err := other.RemoveImage(img.ID, storage.Removal{KeepLayers: true}); !errors.Is(err, storage.ErrImageInUse) {
		t.Errorf("forget an image that is held: %v", err)
	}
	if err := other.AddNames(img.ID, "localhost/other:1"); err != nil {
		t.Errorf("name an image that is held: %v", err)
	}
	if _, err := other.RemoveImage(img.ID, storage.Removal{Held: true}); err != nil {
		t.Errorf("forget an image that is held, by force: %v", err)
	}
	if _, err := s.Image(img.ID); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("the image is there: %v", err)
	}
	layerExists(t, other, base, true)
	if err := other.DeleteLayer(base.ID); !errors.Is(err, storage.ErrLayerInUse) {
		t.Errorf("delete a layer that is held: %v", err)
	}
	closeStore(t, s)
	if err := other.DeleteLayer(base.ID); err != nil {
		t.Errorf("delete a layer that was held: %v", err)
	}
}

// An image must be removed with its layers, except those that are held and those below.
func TestHeldLayerStays(t *testing.T) {
	_, s, other := neighbours(t)
	base := create(t, s, "", file("a", "1"))
	middle := create(t, s, base.ID, file("b", "2"))
	top := create(t, s, middle.ID, file("c", "3"))
	img := image(t, s, spec(t, "one", []storage.Layer{base, middle, top}, "localhost/app:1"))
	closeStore(t, s)
	if err := s.Hold(middle.ID); err != nil {
		t.Fatal(err)
	}
	gone, err := other.RemoveImage(img.ID, storage.Removal{})
	if err != nil || !cmp.Equal(gone, []string{top.ID}) {
		t.Errorf("removed %v, %v; want %s", gone, err, top.ID)
	}
	layerExists(t, other, base, true)
	layerExists(t, other, middle, true)
	layerExists(t, other, top, false)
	if n := count(t, other); n != 2 {
		t.Errorf("%d layers are left, want 2", n)
	}
}

func TestRemoveImageLooksAgain(t *testing.T) {
	_, s, other := neighbours(t)
	img := image(t, s, spec(t, "one", nil))
	closeStore(t, s)
	if err := s.AddNames(img.ID, "localhost/kept:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.RemoveImage(img.ID, storage.Removal{Still: storage.Image.Dangling}); !errors.Is(err, storage.ErrImageChanged) {
		t.Errorf("an image that was named meanwhile: %v", err)
	}
	if err := s.RemoveNames(img.ID, "localhost/kept:1"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.RemoveImage(img.ID, storage.Removal{Still: storage.Image.Dangling}); err != nil {
		t.Errorf("an image without a name: %v", err)
	}
}

// An image without a name must have a name for other programs, as long as the process
// that recorded it needs the image.
func TestInterimName(t *testing.T) {
	_, s, other := neighbours(t)
	unnamed := spec(t, "one", nil)
	unnamed.Interim = true
	img := image(t, s, unnamed)
	if len(img.Names) != 0 {
		t.Errorf("names %q", img.Names)
	}
	tool(t, other, "podman", "image", "prune", "-f")
	if seen, err := other.Image(img.ID); err != nil || len(seen.Names) != 0 {
		t.Errorf("after podman image prune: names %q, %v", seen.Names, err)
	}
	closeStore(t, s)
	if seen, err := other.Library().Image(img.ID); err != nil || len(seen.Names) != 0 {
		t.Errorf("afterwards: %+v, %v", seen, err)
	}
	tool(t, other, "podman", "image", "prune", "-f")
	if _, err := other.Image(img.ID); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("podman image prune leaves an image without a name: %v", err)
	}
}

// Pinned layers must stay if podman removes their image by force.
func TestPin(t *testing.T) {
	_, s, other := neighbours(t)
	base := create(t, s, "", file("a", "1"))
	top := create(t, s, base.ID, file("b", "2"))
	image(t, s, spec(t, "one", []storage.Layer{base, top}, "localhost/app:1"))
	closeStore(t, s)
	for range 2 {
		if err := s.Pin(top.ID); err != nil {
			t.Fatal(err)
		}
	}
	tool(t, other, "podman", "rmi", "--force", "localhost/app:1")
	layerExists(t, other, base, true)
	layerExists(t, other, top, true)
	if data, err := readDiff(other, top.ID); err != nil || len(data) == 0 {
		t.Errorf("read the layer: %v", err)
	}
	closeStore(t, s)
	all, err := other.Library().Layers()
	if err != nil || len(all) != 2 {
		t.Errorf("%d layers are left, %v; want 2", len(all), err)
	}
	if err := s.Pin("0123"); !errors.Is(err, storage.ErrLayerUnknown) {
		t.Errorf("pin what is not there: %v", err)
	}
}

// An image in use must stay. podman may remove at most its record, not its layers.
func TestUseImage(t *testing.T) {
	roots, s, other := neighbours(t)
	layers := []storage.Layer{create(t, s, "", file("a", "1"))}
	idx, images := index(t, s, layers, []string{"amd64", "arm64"}, "localhost/all:1")
	closeStore(t, s)
	user := storetest.Open(t, roots)
	for range 2 {
		if err := user.UseImage(idx.ID); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{idx.ID, images[0].ID, images[1].ID} {
		if _, err := other.RemoveImage(id, storage.Removal{}); !errors.Is(err, storage.ErrImageInUse) {
			t.Errorf("remove %s: %v", id, err)
		}
	}
	if _, err := other.RemoveImage(idx.ID, storage.Removal{Held: true}); err != nil { // with its images
		t.Errorf("remove the index by force: %v", err)
	}
	for _, l := range layers {
		layerExists(t, other, l, true)
	}
	if err := user.UseImage(idx.ID); !errors.Is(err, storage.ErrImageUnknown) {
		t.Errorf("use what was removed: %v", err)
	}
	closeStore(t, user)
	if all, err := other.Library().Layers(); err != nil || len(all) != 1 {
		t.Errorf("%d layers are left, %v; want 1", len(all), err)
	}
}

// The pin of a killed process must be removed when the store is opened next.
func TestPinOfKilledProcess(t *testing.T) {
	roots, s, other := neighbours(t)
	base := create(t, s, "", file("a", "1"))
	cmd := storetest.Command(t, "pin", roots.Graph, roots.Run, base.ID)
	if err := cmd.Run(); err == nil {
		t.Fatal("the helper was not killed")
	}
	if all, err := other.Library().Layers(); err != nil || len(all) != 2 {
		t.Fatalf("%d layers, %v; want a pin", len(all), err)
	}
	again := storetest.Open(t, roots)
	if all, err := again.Library().Layers(); err != nil || len(all) != 1 {
		t.Errorf("%d layers are left, %v; want 1", len(all), err)
	}
}

// shared returns a store with an additional image store, which has img and base.
func shared(t *testing.T) (s *storage.Store, img storage.Image, base storage.Layer) {
	t.Helper()
	img, base = share(t, file("a", "1"))
	return storetest.Open(t, storetest.NewRoots(t)), img, base
}

// share makes a store that is the additional image store of all stores that are opened
// afterwards.
func share(t *testing.T, fill storage.FillFunc) (img storage.Image, base storage.Layer) {
	t.Helper()
	from := storetest.NewRoots(t)
	first := storetest.Open(t, from)
	base = create(t, first, "", fill)
	img = image(t, first, spec(t, "one", []storage.Layer{base}, "localhost/shared:1"))
	closeStore(t, first)
	// In one process, the library does not open the same store for reading and writing.
	readOnly := filepath.Join(t.TempDir(), "shared")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from.Graph, readOnly).CombinedOutput(); err != nil {
		t.Fatalf("copy the store: %v\n%s", err, out)
	}
	conf := filepath.Join(t.TempDir(), "storage.conf")
	if err := os.WriteFile(conf, []byte("[storage]\ndriver = \"overlay\"\n[storage.options]\nadditionalimagestores = [\""+readOnly+"\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", conf)
	return img, base
}

// If owners are recorded, layers of an additional store must be unpacked once more, with
// the owners from their tar-split.
func TestAdopt(t *testing.T) {
	_, base := share(t, storetest.Fill(func(upper string) error {
		name := filepath.Join(upper, "owned")
		return errors.Join(os.WriteFile(name, []byte("x"), 0o644), os.Chown(name, 7, 8))
	}))
	roots := storetest.NewRoots(t)
	s, err := storage.Open(storage.Options{GraphRoot: roots.Graph, RunRoot: roots.Run, Recorded: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, s) })
	var own string
	for range 2 {
		again, err := s.Adopt(t.Context(), base.ID)
		if err != nil || own != "" && again != own {
			t.Fatalf("layer %q, %v; the first time %q", again, err, own)
		}
		own = again
	}
	l, err := s.Layer(own)
	if err != nil || own == base.ID || l.ReadOnly || l.DiffID != base.DiffID {
		t.Errorf("adopted %+v, %v", l, err)
	}
	dir, err := s.LayerDir(own)
	if err != nil {
		t.Fatal(err)
	}
	record := make([]byte, 100)
	n, err := unix.Getxattr(filepath.Join(dir, "owned"), "user.containers.override_stat", record)
	if err != nil || !strings.HasPrefix(string(record[:n]), "7:8:") {
		t.Errorf("record %q, %v", record[:max(n, 0)], err)
	}
	if _, err := readDiff(s, own); err != nil {
		t.Error(err)
	}
	top := create(t, s, own, file("b", "2"))
	if same, err := s.Adopt(t.Context(), top.ID); err != nil || same != top.ID {
		t.Errorf("a layer of one's own becomes %q, %v", same, err)
	}
}

func TestAdditionalStore(t *testing.T) {
	s, img, base := shared(t)
	if seen, err := s.Image("localhost/shared:1"); err != nil || !seen.ReadOnly {
		t.Fatalf("image %+v, %v", seen, err)
	}
	for name, err := range map[string]error{
		"remove": func() error { _, err := s.RemoveImage(img.ID, storage.Removal{}); return err }(),
		"forget": func() error { _, err := s.RemoveImage(img.ID, storage.Removal{Held: true}); return err }(),
		"unname": s.RemoveNames(img.ID, "localhost/shared:1"),
	} {
		if !errors.Is(err, storage.ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", name, err)
		}
	}
	if err := s.Pin(base.ID); err != nil {
		t.Errorf("pin a layer that nobody removes: %v", err)
	}

	// If an image built on it is removed, the shared layer must stay.
	top := create(t, s, base.ID, file("b", "2"))
	app := image(t, s, spec(t, "two", []storage.Layer{base, top}, "localhost/app:1"))
	gone, err := s.RemoveImage(app.ID, storage.Removal{})
	if err != nil || !cmp.Equal(gone, []string{top.ID}) {
		t.Errorf("removed %v, %v; want %s", gone, err, top.ID)
	}

	// A new name for a shared image must not make it appear twice.
	if err := s.AddNames(img.ID, "localhost/mine:1"); err != nil {
		t.Fatal(err)
	}
	images, err := s.Images()
	if err != nil || len(images) != 1 || !slices.Contains(images[0].Names, "localhost/mine:1") {
		t.Errorf("images %+v, %v", images, err)
	}
	if _, err := s.RemoveImage("localhost/mine:1", storage.Removal{}); err != nil {
		t.Errorf("remove one's own: %v", err)
	}
	if seen, err := s.Image("localhost/shared:1"); err != nil || !seen.ReadOnly {
		t.Errorf("image %+v, %v", seen, err)
	}
	layerExists(t, s, base, true)
}
