package inplace

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/userns"
)

// The tests run in namespaces entered like shale's own, in which they may mount.
var entered userns.Info

// envChroot starts the tests in a root directory of their own: a test that needs
// one starts itself again with again.
const envChroot = "INPLACE_TEST_CHROOT"

func TestMain(m *testing.M) {
	info, err := userns.Enter(context.Background(), userns.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	entered = info
	if dir := os.Getenv(envChroot); dir != "" {
		if err := unix.Chroot(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := os.Chdir("/"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// envAgain tells a test that it was started by itself.
const envAgain = "INPLACE_TEST_AGAIN"

// again is a process that runs the same test, with variables by which it knows.
// It has its end when t has.
func again(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), envAgain+"=1"), env...)
	return cmd
}

// places runs a test on a directory that fill has filled: once as it is, once as
// an overlay with a layer of those files, whose directories cannot be renamed,
// below. again makes it as it was.
func places(t *testing.T, fill func(t *testing.T, dir string), test func(t *testing.T, place place)) {
	t.Run("directory", func(t *testing.T) {
		dir := diskDir(t)
		fill(t, dir)
		test(t, place{dir: dir, again: func(t *testing.T) { t.Helper() }})
	})
	t.Run("overlay", func(t *testing.T) {
		base := diskDir(t)
		p := place{dir: filepath.Join(base, "root"), overlay: true}
		lower := filepath.Join(base, "lower")
		for _, d := range []string{lower, p.dir} {
			must(t, os.Mkdir(d, 0o755))
		}
		fill(t, lower)
		count := 0
		p.again = func(t *testing.T) {
			t.Helper()
			must(t, unix.Unmount(p.dir, unix.MNT_DETACH))
			count++
			mountOverlay(t, base, fmt.Sprint(count))
		}
		mountOverlay(t, base, "0")
		t.Cleanup(func() { must(t, unix.Unmount(p.dir, unix.MNT_DETACH)) })
		test(t, p)
	})
}

// place is a root directory for a test.
type place struct {
	dir     string
	overlay bool
	// again makes the lower layer's files whole again; a directory stays as it is.
	again func(t *testing.T)
}

// mountOverlay mounts base/lower with new changes at base/root.
func mountOverlay(t *testing.T, base, name string) {
	t.Helper()
	upper, work := filepath.Join(base, "upper"+name), filepath.Join(base, "work"+name)
	for _, d := range []string{upper, work} {
		must(t, os.Mkdir(d, 0o755))
	}
	opts := "lowerdir=" + filepath.Join(base, "lower") + ",upperdir=" + upper + ",workdir=" + work + ",volatile"
	// Who started this process may have entered a user namespace before.
	ids, err := os.ReadFile("/proc/self/uid_map")
	must(t, err)
	if strings.Contains(string(ids), "4294967295") {
		opts += ",redirect_dir=off,index=off"
	} else {
		opts += ",userxattr"
	}
	must(t, unix.Mount("overlay", filepath.Join(base, "root"), "overlay", 0, opts))
}

// diskDir is a directory on a file system on which an overlay can have its
// changes.
func diskDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "inplace-test-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
