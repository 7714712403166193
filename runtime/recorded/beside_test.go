package recorded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Without xattrs, owners and devices are found under every name of a file. A later file
// does not have them.
func TestBeside(t *testing.T) {
	if asRootOfOneID(t) {
		return
	}
	dir := t.TempDir()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	name := func(n string) string { return filepath.Join(dir, n) }
	expect := func(o *Owners, n, want string) {
		t.Helper()
		var st unix.Stat_t
		do(unix.Fstatat(at, n, &st, unix.AT_SYMLINK_NOFOLLOW), o.Lookup(at, n, &st))
		got := fmt.Sprintf("%d:%d", st.Uid, st.Gid)
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFCHR || kind == unix.S_IFBLK {
			got += fmt.Sprintf(" device %d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", n, got, want)
		}
		if _, err := unix.Lgetxattr(name(n), Attribute, nil); err == nil {
			t.Errorf("%s has an attribute", n)
		}
	}

	o := NewBeside()
	do(os.WriteFile(name("file"), nil, 0o600), os.Mkdir(name("sub"), 0o700), os.Symlink("file", name("link")))
	do(o.Mknod(at, "null", unix.S_IFCHR|0o666, unix.Mkdev(1, 3)))
	expect(o, "file", "0:0")
	expect(o, "null", "0:0 device 1:3")
	do(o.Chown(at, "file", 1, 2), o.Chown(at, "sub", 3, 4), o.Chown(at, "link", 5, 6), o.Chown(at, "null", 7, same))
	expect(o, "file", "1:2")
	expect(o, "sub", "3:4")
	expect(o, "link", "5:6")
	expect(o, "null", "7:0 device 1:3")
	do(os.Rename(name("file"), name("sub/renamed")), os.Link(name("sub/renamed"), name("linked")))
	expect(o, "linked", "1:2")

	// Inode numbers are reused at once, within one tick of the clock.
	for i := range 300 {
		do(os.WriteFile(name("next"), nil, 0o600))
		expect(o, "next", "0:0")
		do(o.Chown(at, "next", uint32(i+1), 9), os.Remove(name("next")))
		if t.Failed() {
			return
		}
	}

	// Another Owners reads them from the saved file and from a layer.
	kept := filepath.Join(t.TempDir(), "kept.json")
	do(o.SaveLinks(dir, kept))
	other := o.Fresh()
	do(other.RestoreLinks(kept))
	expect(other, "linked", "1:2")
	expect(other, "sub", "3:4")
	expect(other, "link", "5:6")
	expect(other, "null", "7:0 device 1:3")
	layer := NewBeside()
	named := []Named{
		{"sub", Record{UID: 8, GID: 9}},
		{"sub/renamed", Record{UID: 1}},
		{"gone", Record{UID: 1}},
		{"null", Record{Type: unix.S_IFBLK, Rdev: unix.Mkdev(8, 1)}},
		{"../..", Record{UID: 1, GID: 5}},
	}
	do(layer.Load("layer", dir, func() ([]Named, error) { return named, nil }))
	expect(layer, "sub", "8:9")
	expect(layer, "linked", "1:0")
	expect(layer, "null", "0:0 device 8:1")

	// Copies have them too, even a directory that had another owner.
	to := t.TempDir()
	into, err := unix.Open(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(into)
	do(os.Mkdir(filepath.Join(to, "sub"), 0o700), os.WriteFile(filepath.Join(to, "null"), nil, 0o600))
	do(o.CopyLinks(dir, to))
	for n, want := range map[string][2]uint32{"sub": {3, 4}, "null": {7, 0}} {
		if got := owner(t, o, filepath.Join(to, n)); got != want {
			t.Errorf("copy of %s belongs to %v, want %v", n, got, want)
		}
	}
	do(o.Chown(at, ".", 1, 1), o.Copied(at, ".", into, "."))
	if got := owner(t, o, to); got != [2]uint32{1, 1} {
		t.Errorf("copy of the directory belongs to %v", got)
	}
	do(o.Chown(at, ".", 0, 0), o.Copied(at, ".", into, "."))
	if got := owner(t, o, to); got != [2]uint32{} {
		t.Errorf("copy of root's directory belongs to %v", got)
	}
}

func TestProbeBeside(t *testing.T) {
	if err := probeHandles(t.TempDir()); err != nil {
		t.Error(err)
	}
	// /proc has no file handles.
	if err := probeHandles("/proc/self"); err == nil {
		t.Error("/proc passes")
	}
}
