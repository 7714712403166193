package umask

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSetAndOf(t *testing.T) {
	old := unix.Umask(0o027)
	defer unix.Umask(old)
	t.Setenv(variable, "") // t.Setenv restores it at the end
	if got := Of(0o666); got != 0o640 {
		t.Errorf("before Set: %04o of 0666, want 0640", got)
	}
	if err := Set(); err != nil {
		t.Fatal(err)
	}
	if got := unix.Umask(0o022); got != working {
		t.Errorf("the process has the mask %04o", got)
	}
	for perm, want := range map[fs.FileMode]fs.FileMode{0o666: 0o640, 0o777: 0o750, 0o700: 0o700} {
		if got := Of(perm); got != want {
			t.Errorf("%04o of %04o, want %04o", got, perm, want)
		}
	}
}

func TestMkdirAll(t *testing.T) {
	old := unix.Umask(working)
	defer unix.Umask(old)
	for mask, want := range map[string]fs.FileMode{"0": 0o777, "2": 0o775, "22": 0o755, "77": 0o700} {
		t.Run(mask, func(t *testing.T) {
			t.Setenv(variable, mask)
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = root.Close() }()
			if err := MkdirAll(root, "a/b", fs.ModePerm); err != nil {
				t.Fatal(err)
			}
			if err := MkdirAll(Host{}, filepath.Join(dir, "a", "c", "d"), fs.ModePerm); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a", "a/b", "a/c", "a/c/d"} {
				info, err := root.Stat(name)
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode().Perm() != want {
					t.Errorf("%s has mode %04o, want %04o", name, info.Mode().Perm(), want)
				}
			}
		})
	}
}
