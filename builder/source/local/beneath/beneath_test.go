package beneath

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func plant(t *testing.T) *os.File {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"a/b", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"a/b/file", "etc/passwd"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("inside"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"abs": "/etc", "up": "../../../../etc/passwd", "a/rel": "../etc", "dangling": "/new/place/x",
		"loop": "loop", "chain": "abs", "a/self": ".", "deep": "a/rel/passwd",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func TestResolve(t *testing.T) {
	root := plant(t)
	tests := []struct {
		name   string
		follow bool
		want   string
		err    error
	}{
		{"", true, ".", nil},
		{"/", false, ".", nil},
		{"../..", true, ".", nil},
		{"a/b/file", true, "a/b/file", nil},
		{"/a/./b/../b/file", true, "a/b/file", nil},
		{"abs/passwd", true, "etc/passwd", nil},
		{"abs", true, "etc", nil},
		{"abs", false, "abs", nil},
		{"abs/", false, "etc", nil},
		{"abs/.", false, "etc", nil},
		{"up", true, "etc/passwd", nil},
		{"a/rel/passwd", true, "etc/passwd", nil},
		{"chain/passwd", true, "etc/passwd", nil},
		{"deep", true, "etc/passwd", nil},
		{"a/self/self/b", true, "a/b", nil},
		{"a/rel/..", true, ".", nil},
		{"dangling", true, "new/place/x", nil},
		{"dangling/y/../z", true, "new/place/x/z", nil},
		{"dangling", false, "dangling", nil},
		{"missing/../../../a", true, "a", nil},
		{"missing/../abs", true, "etc", nil},
		{"loop", true, "", unix.ELOOP},
		{"loop/x", false, "", unix.ELOOP},
		{"etc/passwd/x", true, "", unix.ENOTDIR},
	}
	for _, tt := range tests {
		got, err := Resolve(int(root.Fd()), tt.name, tt.follow)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Resolve(%q, %v) = %q, %v; want %q, %v", tt.name, tt.follow, got, err, tt.want, tt.err)
		}
	}
}

func TestOpen(t *testing.T) {
	root := plant(t)
	for rel, ok := range map[string]bool{
		".": true, "a/b/file": true, "etc": true, "abs": false, "abs/passwd": false, "up": false,
		"a/rel/passwd": false, "../x": false, "..": false, "a/..": true, "missing": false,
	} {
		fd, err := Open(int(root.Fd()), rel, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err == nil {
			_ = unix.Close(fd)
		}
		if (err == nil) != ok {
			t.Errorf("open %s: %v", rel, err)
		}
	}
}

func TestOpenRegular(t *testing.T) {
	root := plant(t)
	for _, name := range []string{"fifo", "etc", "/"} {
		if _, err := OpenRegular(int(root.Fd()), name); !errors.Is(err, ErrNotRegular) {
			t.Errorf("%s: %v, want %v", name, err, ErrNotRegular)
		}
	}
	f, err := OpenRegular(int(root.Fd()), "up")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	got := make([]byte, 10)
	if n, err := f.Read(got); err != nil || string(got[:n]) != "inside" {
		t.Errorf("read %q, %v", got[:n], err)
	}
}
