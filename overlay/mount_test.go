package overlay_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
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

func TestProbe(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, env overlaytest.Env) {
		dir := t.TempDir()
		got, err := overlay.Probe(dir)
		must(t, err)
		want := overlay.Features{
			NewMountAPI:  true,
			LowerdirPlus: true,
			UserXattr:    true,
			TrustedXattr: !env.UserXattr,
			Volatile:     true,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		left, err := os.ReadDir(dir)
		must(t, err)
		if len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
		t.Run("no overlay", func(t *testing.T) {
			proc := t.TempDir()
			// An overlay cannot be the upper of another one.
			m := overlay.Mount{Lower: []string{t.TempDir(), t.TempDir()}, Upper: t.TempDir(), Work: t.TempDir(), Target: proc, UserXattr: env.UserXattr}
			m.Work = filepath.Join(filepath.Dir(m.Upper), "work")
			must(t, os.Mkdir(m.Work, 0o700))
			must(t, m.Mount())
			defer func() { must(t, overlay.Unmount(proc)) }()
			if f, err := overlay.Probe(proc); err == nil {
				t.Errorf("no error but %+v", f)
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
