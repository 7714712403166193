package recorded

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// owner returns the recorded owner of the file name.
func owner(t *testing.T, o *Owners, name string) [2]uint32 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatal(err)
	}
	st.Uid, st.Gid = 0, 0
	if err := o.Lookup(unix.AT_FDCWD, name, &st); err != nil {
		t.Fatal(err)
	}
	return [2]uint32{st.Uid, st.Gid}
}

// Another build must find the saved owners of links. A new file with the same name must
// not get them.
func TestLinksKept(t *testing.T) {
	dir := t.TempDir()
	data, file := filepath.Join(dir, "data"), filepath.Join(dir, "links.json")
	if err := os.MkdirAll(filepath.Join(data, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := func(n string) string { return filepath.Join(data, n) }
	set := func(o *Owners, n string, r Record) {
		t.Helper()
		fd, err := unix.Open(name(n), unix.O_PATH|unix.O_NOFOLLOW, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		k, err := o.table.key(fd, "", 0)
		if err == nil {
			err = o.table.set(k, r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	save := func(o *Owners) {
		t.Helper()
		if err := o.SaveLinks(data, file); err != nil {
			t.Fatal(err)
		}
	}
	link := func(n string) {
		t.Helper()
		if err := os.Symlink("/etc", name(n)); err != nil {
			t.Fatal(err)
		}
	}
	restore := func() *Owners {
		t.Helper()
		o := New()
		if err := o.RestoreLinks(file); err != nil {
			t.Fatal(err)
		}
		return o
	}
	expect := func(o *Owners, want map[string]uint32) {
		t.Helper()
		for n, uid := range want {
			if got := owner(t, o, name(n)); got != [2]uint32{uid, uid} {
				t.Errorf("%s belongs to %v, want %d", n, got, uid)
			}
		}
	}

	first := New()
	save(first)
	if _, err := os.Lstat(file); err == nil {
		t.Error("nothing to remember is remembered")
	}
	link("a")
	link("sub/b")
	link("gone")
	if err := unix.Mkfifo(name("sub/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	set(first, "a", Record{UID: 1, GID: 1})
	set(first, "sub/b", Record{UID: 2, GID: 2})
	set(first, "sub/fifo", Record{UID: 3, GID: 3})
	set(first, "gone", Record{UID: 4, GID: 4})
	save(first)
	expect(restore(), map[string]uint32{"a": 1, "sub/b": 2, "sub/fifo": 3, "gone": 4})

	// Two builds run at once. Neither loses the records that the other has saved, or
	// restores a record that it has removed itself.
	second, third := restore(), restore()
	link("c")
	set(second, "c", Record{UID: 5, GID: 5})
	set(second, "a", Record{})
	save(second)
	if err := os.Remove(name("gone")); err != nil {
		t.Fatal(err)
	}
	link("gone")
	if err := os.Rename(name("sub/b"), name("b")); err != nil {
		t.Fatal(err)
	}
	link("d")
	set(third, "d", Record{UID: 6, GID: 6})
	set(third, "a", Record{})
	save(third)
	expect(restore(), map[string]uint32{"a": 0, "b": 2, "sub/fifo": 3, "gone": 0, "c": 5, "d": 6})

	if err := os.WriteFile(file, []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(restore(), map[string]uint32{"c": 0})
}

// Copies of links must have the same owners as the originals, in subdirectories too.
func TestCopyLinks(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	o := New()
	if err := o.CopyLinks(from, to); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{from, to} {
		for _, err := range []error{
			os.Mkdir(filepath.Join(dir, "sub"), 0o755),
			os.Symlink("sub", filepath.Join(dir, "a")),
			os.Symlink("none", filepath.Join(dir, "sub/b")),
			os.Symlink("none", filepath.Join(dir, "sub/root")),
			unix.Mkfifo(filepath.Join(dir, "sub/fifo"), 0o600),
			os.WriteFile(filepath.Join(dir, "file"), nil, 0o600),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, r := range map[string]Record{"a": {UID: 1, GID: 2}, "sub/b": {UID: 3, GID: 4}, "sub/fifo": {UID: 5, GID: 6}} {
		var x unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, filepath.Join(from, name), unix.AT_SYMLINK_NOFOLLOW, keyMask, &x); err != nil {
			t.Fatal(err)
		}
		if err := o.table.set(keyOf(&x), r); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(to, "sub/fifo")); err != nil {
		t.Fatal(err)
	}
	if err := o.CopyLinks(from, to); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]uint32{"a": {1, 2}, "sub/b": {3, 4}, "sub/root": {}, "file": {}} {
		if got := owner(t, o, filepath.Join(to, name)); got != want {
			t.Errorf("%s belongs to %v, want %v", name, got, want)
		}
	}
}
