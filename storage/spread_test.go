package storage

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory of unrelated directories must have the hint if the file system supports it.
// The directories in it must not inherit it.
func TestSpread(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the hint is set already in the second call
		if err := Spread(dir); err != nil {
			t.Fatal(err)
		}
	}
	inner := filepath.Join(dir, "inner")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	// For an overlay, the test does not know the file system of its upper directory.
	if got, want := isSpread(t, dir), st.Type == unix.EXT4_SUPER_MAGIC; got != want && st.Type != unix.OVERLAYFS_SUPER_MAGIC {
		t.Errorf("%s: attribute T is %v, want %v", dir, got, want)
	}
	if isSpread(t, inner) {
		t.Errorf("%s has inherited attribute T", inner)
	}
	if err := Spread(filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing directory gives no error")
	}
}

// isSpread reports whether dir has attribute T. It returns false if the file system has
// no such attributes.
func isSpread(t *testing.T, dir string) bool {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return false
	}
	return flags&topDir != 0
}
