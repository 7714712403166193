package storetest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

// configure replaces the system's storage.conf, visible only to this process.
func configure(t *testing.T, conf string) {
	t.Helper()
	const dir = "/etc/containers"
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatalf("hide %s: %v", dir, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestStorageConf checks that Open opens the same store as podman.
func TestStorageConf(t *testing.T) {
	if os.Getenv("_CONTAINERS_USERNS_CONFIGURED") == "" {
		t.Skip("root uses what the system's storage.conf says: nothing to tell apart")
	}
	tests := map[string]struct{ system, user, want string }{
		"nothing":            {"", "", "data/containers/storage"},
		"system graph root":  {"[storage]\ndriver = \"overlay\"\ngraphroot = \"/var/lib/containers/storage\"\nrunroot = \"/run/containers/storage\"\n", "", "data/containers/storage"},
		"system for users":   {"[storage]\ndriver = \"overlay\"\ngraphroot = \"/var/lib/x\"\nrootless_storage_path = \"$HOME/shared\"\n", "", "shared"},
		"the user's own":     {"[storage]\ndriver = \"overlay\"\n", "[storage]\ndriver = \"overlay\"\ngraphroot = \"$HOME/own\"\n", "own"},
		"the user overrules": {"[storage]\ndriver = \"overlay\"\nrootless_storage_path = \"$HOME/shared\"\n", "[storage]\ndriver = \"overlay\"\ngraphroot = \"$HOME/own\"\n", "own"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			t.Setenv("HOME", home)
			t.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			configure(t, test.system)
			if test.user != "" {
				dir := filepath.Join(home, "config", "containers")
				if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "storage.conf"), []byte(test.user), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			s, err := storage.Open(storage.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { storetest.Unmount(s.GraphRoot()) })
			if want := filepath.Join(home, test.want); s.GraphRoot() != want {
				t.Errorf("graph root is %s, want %s", s.GraphRoot(), want)
			}
		})
	}
}

func TestOtherDriver(t *testing.T) {
	t.Setenv("STORAGE_DRIVER", "vfs")
	dir := t.TempDir()
	_, err := storage.Open(storage.Options{GraphRoot: filepath.Join(dir, "g"), RunRoot: filepath.Join(dir, "r")})
	if !errors.Is(err, storage.ErrDriver) {
		t.Errorf("error = %v, want ErrDriver", err)
	}
}
