package overlay_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/overlay/overlaytest"
)

type bindFunc = func(source *os.File, target string, o overlay.BindOptions) error

func TestBind(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, _ overlaytest.Env) {
		for name, bind := range map[string]bindFunc{
			"default":              overlay.Bind,
			"cloning":              overlay.BindByCloning,
			"remounting":           overlay.BindByRemounting,
			"after missing":        overlay.BindAfterRefusal(unix.ENOSYS),
			"after filter":         overlay.BindAfterRefusal(unix.EPERM),
			"onto":                 onto(overlay.BindOnto),
			"onto with remounting": onto(overlay.BindOntoByRemounting),
		} {
			t.Run(name, func(t *testing.T) { testBind(t, bind) })
		}
	})
}

func onto(bind func(source, target *os.File, o overlay.BindOptions) error) bindFunc {
	return func(source *os.File, target string, o overlay.BindOptions) error {
		f, err := os.OpenFile(target, unix.O_PATH, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return bind(source, f, o)
	}
}

func testBind(t *testing.T, bind bindFunc) {
	for _, c := range []struct {
		name string
		o    overlay.BindOptions
		// want and below are the flags of the mount and of the tmpfs below it. The tmpfs
		// is always nodev.
		want, below int64
	}{
		{"plain", overlay.BindOptions{}, 0, 0},
		{"read-only", overlay.BindOptions{ReadOnly: true}, unix.ST_RDONLY, 0},
		{"restricted", overlay.BindOptions{NoSuid: true, NoDev: true, NoExec: true}, unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC, 0},
		{"recursive", overlay.BindOptions{Recursive: true}, 0, unix.ST_NODEV},
		{"recursive read-only", overlay.BindOptions{Recursive: true, ReadOnly: true}, unix.ST_RDONLY, unix.ST_RDONLY | unix.ST_NODEV},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, dst := t.TempDir(), filepath.Join(t.TempDir(), `to here\`)
			must(t, os.Mkdir(dst, 0o700))
			below := filepath.Join(src, "be low")
			must(t, os.Mkdir(below, 0o700))
			must(t, os.WriteFile(filepath.Join(src, "f"), []byte("f"), 0o600))
			// Mount both, so that their flags are known.
			must(t, unix.Mount(src, src, "", unix.MS_BIND, ""))
			defer unmountTree(t, src)
			must(t, unix.Mount("tmpfs", below, "tmpfs", unix.MS_NODEV, ""))

			must(t, bind(open(t, src), dst, c.o))
			defer unmountTree(t, dst)
			if _, err := os.Stat(filepath.Join(dst, "f")); err != nil {
				t.Error(err)
			}
			const mask = unix.ST_RDONLY | unix.ST_NOSUID | unix.ST_NODEV | unix.ST_NOEXEC
			base := flags(t, src) & mask
			if got := flags(t, dst) & mask; got != c.want|base {
				t.Errorf("flags %#x, want %#x", got, c.want|base)
			}
			if c.o.Recursive {
				if got := flags(t, filepath.Join(dst, "be low")) & mask; got != c.below {
					t.Errorf("flags below %#x, want %#x", got, c.below)
				}
			} else if flags(t, filepath.Join(dst, "be low"))&mask != c.want|base {
				t.Error("the mount below came along")
			}
			if got := flags(t, src) & mask; got != base {
				t.Errorf("source's flags changed to %#x", got)
			}
			err := os.WriteFile(filepath.Join(dst, "g"), nil, 0o600)
			if c.o.ReadOnly != errors.Is(err, unix.EROFS) {
				t.Errorf("write: %v", err)
			}
		})
	}
	t.Run("file", func(t *testing.T) {
		dir := t.TempDir()
		src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		must(t, os.WriteFile(src, []byte("a"), 0o600))
		must(t, os.WriteFile(dst, []byte("b"), 0o600))
		must(t, bind(open(t, src), dst, overlay.BindOptions{ReadOnly: true}))
		defer unmountTree(t, dst)
		got, err := os.ReadFile(dst)
		must(t, err)
		if string(got) != "a" {
			t.Errorf("got %q", got)
		}
	})
	t.Run("the source may have been exchanged", func(t *testing.T) {
		dir := t.TempDir()
		src, dst := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		must(t, os.Mkdir(src, 0o700))
		must(t, os.Mkdir(dst, 0o700))
		must(t, os.WriteFile(filepath.Join(src, "f"), nil, 0o600))
		f := open(t, src)
		must(t, os.Rename(src, src+"2"))
		must(t, os.Symlink("/etc", src))
		must(t, bind(f, dst, overlay.BindOptions{}))
		defer unmountTree(t, dst)
		if _, err := os.Stat(filepath.Join(dst, "f")); err != nil {
			t.Error(err)
		}
	})
	t.Run("no target", func(t *testing.T) {
		dir := t.TempDir()
		if err := bind(open(t, dir), filepath.Join(dir, "x"), overlay.BindOptions{}); !errors.Is(err, unix.ENOENT) {
			t.Errorf("got %v, want ENOENT", err)
		}
	})
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func flags(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(path, &st))
	return st.Flags
}

func unmountTree(t *testing.T, path string) {
	t.Helper()
	must(t, unix.Unmount(path, unix.MNT_DETACH))
}

func TestParseMountsBelow(t *testing.T) {
	const info = `22 1 0:20 / / rw - ext4 /dev/sda rw
23 22 0:21 / /a rw shared:1 - tmpfs tmpfs rw
24 22 0:21 / /a/b\040c rw - tmpfs tmpfs rw
25 22 0:21 / /ab rw - tmpfs tmpfs rw
26 24 0:21 / /a/b\040c rw - tmpfs tmpfs rw
27 24 0:21 / /a/b\040c/d\134e rw - tmpfs tmpfs rw
`
	got, err := overlay.ParseMountsBelow(strings.NewReader(info), "/a")
	must(t, err)
	if diff := cmp.Diff([]string{"/a", "/a/b c", `/a/b c/d\e`}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := overlay.ParseMountsBelow(strings.NewReader("short line\n"), "/a"); err == nil {
		t.Error("no error for a malformed line")
	}
}

func FuzzUnescapeOctal(f *testing.F) {
	for _, s := range []string{"", `a\040b`, `\134`, `\`, `\9`, `\400`, "\\04\xff"} {
		f.Add(s)
	}
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	f.Fuzz(func(t *testing.T, s string) {
		if got := overlay.UnescapeOctal(escape.Replace(s)); got != s {
			t.Errorf("%q came back as %q", s, got)
		}
		if got := overlay.UnescapeOctal(s); len(got) > len(s) {
			t.Errorf("%q grew to %q", s, got)
		}
	})
}
