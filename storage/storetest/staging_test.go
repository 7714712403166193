package storetest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

// podman and buildah with containers/storage before 1.54 remove overlay/staging when a
// command ends.
func TestNeighbourRemovesStaging(t *testing.T) {
	roots := storetest.NewRoots(t)
	s := storetest.Open(t, roots)
	l := create(t, s, "", func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
		fill := file("a", "1")
		if err := errors.Join(os.RemoveAll(filepath.Join(roots.Graph, "overlay", "staging")), os.RemoveAll(filepath.Join(roots.Graph, "overlay", "tempdirs"))); err != nil {
			return storage.Diff{}, err
		}
		if strings.HasPrefix(st.Upper, filepath.Join(roots.Graph, "overlay")+"/") {
			t.Errorf("the layer is made in %s", st.Upper)
		}
		return fill(ctx, st)
	})
	checkFile(t, s, l, "a", "1")
	checkNothingStaged(t, s)
}

// rename(2) does not work from one mount to another.
func TestLayersOnAMount(t *testing.T) {
	for _, test := range []struct {
		name string
		// before or after is called before or after the store is opened.
		before, after func(t *testing.T, layers string)
		// in is the directory in which the layer must be made then.
		in string
	}{
		{name: "podman mounted the directory of layers on itself", before: bindOnItself, in: "shale/staging"},
		{name: "podman mounts it later", after: bindOnItself, in: "overlay/shale"},
		{name: "it is on a file system of its own", before: mountTmpfs, in: "overlay/shale"},
	} {
		t.Run(test.name, func(t *testing.T) {
			roots := storetest.NewRoots(t)
			layers := filepath.Join(roots.Graph, "overlay")
			if err := os.MkdirAll(layers, 0o700); err != nil {
				t.Fatal(err)
			}
			if test.before != nil {
				test.before(t, layers)
			}
			s := storetest.Open(t, roots)
			if test.after != nil {
				test.after(t, layers)
			}
			l := create(t, s, "", func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
				if got := filepath.Dir(filepath.Dir(st.Upper)); got != filepath.Join(roots.Graph, test.in) {
					t.Errorf("the layer is made in %s, want %s", got, test.in)
				}
				return file("a", "1")(ctx, st)
			})
			checkFile(t, s, l, "a", "1")
			left, err := os.ReadDir(filepath.Join(roots.Graph, test.in))
			if err != nil || len(left) > 0 {
				t.Errorf("left behind are %v, %v", left, err)
			}
		})
	}
}

func bindOnItself(t *testing.T, layers string) {
	t.Helper()
	if err := unix.Mount(layers, layers, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
}

func mountTmpfs(t *testing.T, layers string) {
	t.Helper()
	if err := unix.Mount("tmpfs", layers, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
}

// Mounts on the machine during a build must not reach the store of the build.
func TestMountsDoNotSpread(t *testing.T) {
	shared := filepath.Join(t.TempDir(), "shared")
	if err := os.Mkdir(shared, 0o700); err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.Mkdir(outside, 0o700); err != nil {
		t.Fatal(err)
	}
	// The two directories are peers of one mount: a mount in one of them appears in both.
	bindOnItself(t, shared)
	if err := unix.Mount("", shared, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(shared, outside, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, dir := range []string{outside, shared} {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	})
	roots := storetest.NewRoots(t)
	roots.Graph = filepath.Join(shared, "graph")
	s := storetest.Open(t, roots)
	l := create(t, s, "", func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
		bindOnItself(t, filepath.Join(outside, "graph", "overlay"))
		return file("a", "1")(ctx, st)
	})
	checkFile(t, s, l, "a", "1")
	if err := unix.Unmount(filepath.Join(outside, "graph", "overlay"), unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
	if err := unix.Unmount(roots.Graph, unix.MNT_DETACH); err != nil {
		t.Error(err)
	}
}

func checkFile(t *testing.T, s *storage.Store, l storage.Layer, name, want string) {
	t.Helper()
	dir, err := s.LayerDir(l.ID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || string(got) != want {
		t.Errorf("%s = %q, %v; want %q", name, got, err, want)
	}
}
