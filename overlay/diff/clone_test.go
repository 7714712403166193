package diff_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/overlay/diff"
	"github.com/shale-build/shale/overlay/overlaytest"
)

type cloneFunc = func(ctx context.Context, src, dst string) error

// TestClone checks that a clone is packed to the same layer as the original.
func TestClone(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, env overlaytest.Env) {
		for _, c := range []struct {
			name  string
			clone cloneFunc
			links bool
		}{
			{"default", diff.Clone, true},
			{"another filesystem", diff.CloneWithLinks(refuse(unix.EXDEV)), false},
			{"too many links", diff.CloneWithLinks(refuse(unix.EMLINK)), false},
			{"linking forbidden", diff.CloneWithLinks(refuse(unix.EPERM)), false},
			{"too many links to some", diff.CloneWithLinks(someLinks(unix.EMLINK)), false},
		} {
			t.Run(c.name, func(t *testing.T) {
				f := mount(t, env, []func(tree){func(d tree) {
					d.dirs("gone", "opaque/x", "kept/y")
					d.file("kept/gone", "x", 0o644)
				}})
				fillForClone(tree{t, f.Target, env})
				must(t, overlay.Unmount(f.Target))
				_, wantLayer := f.pack(t)

				dst := t.TempDir()
				must(t, c.clone(t.Context(), f.Upper, dst))
				if c.links != sameFile(t, filepath.Join(f.Upper, "file"), filepath.Join(dst, "file")) {
					t.Errorf("linked: %v, want %v", !c.links, c.links)
				}
				f.Upper = dst
				_, layer := f.pack(t)
				if !bytes.Equal(layer, wantLayer) {
					_, a := read(t, wantLayer)
					_, b := read(t, layer)
					t.Errorf("the clone packs differently (-original +clone):\n%s", cmp.Diff(a, b))
				}
			})
		}
	})
}

func fillForClone(d tree) {
	d.remove("gone")
	d.remove("opaque")
	d.dirs("opaque/new", "deep/er")
	d.remove("kept/gone")
	d.copyUp("kept/y")
	d.file("file", strings.Repeat("data", 100000), 0o640)
	d.file("deep/er/owned", "x", 0o755)
	d.chown("deep/er/owned", 7, 8)
	d.chmod("deep/er/owned", 0o6755)
	d.setcap("file")
	d.setxattr("file", "user.x", "y")
	d.link("deep/er/owned", "deep/er/second")
	d.link("deep/er/owned", "third")
	d.symlink("target", "sym")
	d.link("sym", "deep/sym")
	d.chown("sym", 9, 9)
	d.mknod("fifo", unix.S_IFIFO|0o622, 0)
	d.mknod("sock", unix.S_IFSOCK|0o622, 0)
	d.file("sparse", "", 0o600)
	d.truncate("sparse", 1<<20)
	d.file("\xff", "x", 0o644)
	d.setxattr("deep", "user.dir", "z")
	d.chmod("deep", 0o2775)
	for i, name := range []string{"file", "deep/er/owned", "fifo", "opaque", "deep"} {
		d.mtime(name, time.Unix(1600000000+int64(i), 5))
	}
}

type linkFunc = func(olddir int, oldname string, newdir int, newname string, flags int) error

func refuse(err error) linkFunc {
	return func(int, string, int, string, int) error { return err }
}

// someLinks returns err for one file, and for one name of a file with several names.
func someLinks(err error) linkFunc {
	return func(olddir int, oldname string, newdir int, newname string, flags int) error {
		if oldname == "file" || oldname == "second" {
			return err
		}
		return unix.Linkat(olddir, oldname, newdir, newname, flags)
	}
}

func sameFile(t *testing.T, a, b string) bool {
	t.Helper()
	x, err := os.Lstat(a)
	must(t, err)
	y, err := os.Lstat(b)
	must(t, err)
	return os.SameFile(x, y)
}

func TestCloneErrors(t *testing.T) {
	src := t.TempDir()
	write(t, filepath.Join(src, "f"), []byte("f"))
	t.Run("destination not empty", func(t *testing.T) {
		dst := t.TempDir()
		write(t, filepath.Join(dst, "f"), []byte("other"))
		if err := diff.Clone(t.Context(), src, dst); !errors.Is(err, os.ErrExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("missing", func(t *testing.T) {
		gone := filepath.Join(src, "gone")
		if err := diff.Clone(t.Context(), gone, t.TempDir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		if err := diff.Clone(t.Context(), src, gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := diff.Clone(ctx, src, t.TempDir()); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
