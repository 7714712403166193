package rmtree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// deep creates a tree with the given number of levels and a file in each. It holds only
// one file descriptor at a time.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, "d", 0o700))
		f, err := unix.Openat(fd, "f", unix.O_CREAT|unix.O_WRONLY, 0o600)
		must(t, err)
		must(t, unix.Close(f))
		next, err := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
}

// A tree that is deeper than the limit of file descriptors must be removed too.
func TestDeep(t *testing.T) {
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	dir := t.TempDir()
	deep(t, dir, 500)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: was.Max}))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) })
	err := os.RemoveAll(filepath.Join(dir, "d"))
	if err == nil {
		t.Error("os.RemoveAll can do it, too")
	}
	must(t, Remove(filepath.Join(dir, "d")))
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(dir, "outside")
	must(t, os.MkdirAll(filepath.Join(outside, "x"), 0o755))
	for name, make := range map[string]func(at string) error{
		"nothing":  func(string) error { return nil },
		"file":     func(at string) error { return os.WriteFile(at, nil, 0o600) },
		"link":     func(at string) error { return os.Symlink(outside, at) },
		"dangling": func(at string) error { return os.Symlink("nowhere", at) },
		"fifo":     func(at string) error { return unix.Mkfifo(at, 0o600) },
		"empty":    func(at string) error { return os.Mkdir(at, 0o700) },
		"links in it": func(at string) error {
			return errors.Join(os.Mkdir(at, 0o700), os.Symlink(outside, at+"/l"), os.Symlink("..", at+"/u"))
		},
		"wide": func(at string) error { return wide(at, 300) },
		"wide and deep": func(at string) error {
			return errors.Join(wide(at+"/a/b/c", 10), wide(at+"/a/c", 10), wide(at+"/a/b/d", 3))
		},
		"trailing slash": func(at string) error { return wide(at, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(dir, "at")
			must(t, make(at))
			if name == "trailing slash" {
				at += "/"
			}
			must(t, Remove(at))
			if _, err := os.Lstat(filepath.Join(dir, "at")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
			if _, err := os.Stat(outside + "/x"); err != nil {
				t.Error(err)
			}
		})
	}
	if err := Remove(filepath.Join(dir, "none", "of", "it")); err != nil {
		t.Errorf("no parent: %v", err)
	}
}

func wide(at string, n int) error {
	err := os.MkdirAll(at, 0o700)
	for i := range n {
		err = errors.Join(err, os.Mkdir(fmt.Sprintf("%s/d%d", at, i), 0o700), os.WriteFile(fmt.Sprintf("%s/f%d", at, i), nil, 0o600))
	}
	return err
}

// A directory that cannot be removed must not prevent the removal of the rest. The error
// must name it and be short.
func TestWhatStays(t *testing.T) {
	if os.Geteuid() == 0 {
		return // root may remove anything; the run as a user tests this
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "at")
	must(t, wide(at, 5))
	inner := filepath.Join(at, strings.Repeat("d/", 50))
	must(t, wide(inner, 2))
	must(t, os.Chmod(inner, 0o500))
	t.Cleanup(func() { must(t, errors.Join(os.Chmod(inner, 0o700), os.RemoveAll(at))) })
	err := Remove(at)
	if !errors.Is(err, os.ErrPermission) || len(err.Error()) > len(dir)+200 {
		t.Errorf("error = %v", err)
	}
	if names, err := os.ReadDir(at); err != nil || len(names) != 1 {
		t.Errorf("left: %v, %v", names, err)
	}
}
