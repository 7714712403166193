package overlaytest

import (
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

func dir(t *testing.T, parent, name string) string {
	t.Helper()
	path := filepath.Join(parent, name)
	mkdir(t, path)
	return path
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	must(t, os.Mkdir(path, 0o700))
}

func put(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func get(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return string(text)
}

func names(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(path)
	must(t, err)
	list := make([]string, 0, len(entries))
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func xattr(t *testing.T, path, name string) string {
	t.Helper()
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(path, name, buf)
	must(t, err)
	return string(buf[:n])
}

// mountOptions returns the mount options at target. The path must not have characters
// that the kernel escapes.
func mountOptions(t *testing.T, target string) string {
	t.Helper()
	for line := range strings.Lines(get(t, "/proc/thread-self/mountinfo")) {
		if fields := strings.Fields(line); fields[4] == target {
			return fields[len(fields)-1]
		}
	}
	t.Fatalf("nothing mounted at %s", target)
	return ""
}
