package overlay_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/overlay/overlaytest"
)

func TestMount(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, env overlaytest.Env) {
		for name, mount := range map[string]overlaytest.Mounter{
			"default":       overlay.Mount.Mount,
			"appending":     overlay.MountByAppending,
			"option string": overlay.MountByOptionString,
			"after refusal": overlay.MountAfterRefusal,
		} {
			t.Run(name, func(t *testing.T) { overlaytest.Suite(t, env, mount) })
		}
	})
}

func TestUnmount(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, _ overlaytest.Env) {
		t.Run("not mounted", func(t *testing.T) {
			if err := overlay.Unmount(t.TempDir()); !errors.Is(err, overlay.ErrNotMounted) {
				t.Errorf("got %v", err)
			}
		})
		t.Run("missing", func(t *testing.T) {
			if err := overlay.Unmount(filepath.Join(t.TempDir(), "x")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("got %v", err)
			}
		})
		t.Run("busy is detached", func(t *testing.T) {
			dir := t.TempDir()
			must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
			must(t, os.WriteFile(filepath.Join(dir, "f"), nil, 0o600))
			f, err := os.Open(filepath.Join(dir, "f"))
			must(t, err)
			defer f.Close()
			must(t, overlay.Unmount(dir))
			if _, err := os.Stat(filepath.Join(dir, "f")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("still mounted: %v", err)
			}
		})
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
