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

// entered describes the user namespace of the tests. They enter one as shale does, so
// that they may mount.
var entered userns.Info

// envChroot names a directory that becomes the root directory of the tests. A test that
// needs one starts itself in a new process with again.
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

// envAgain is set in the environment of the processes of again.
const envAgain = "INPLACE_TEST_AGAIN"

// again returns a command that runs the same test with the variables env. It is killed
// when t ends.
func again(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(append(os.Environ(), envAgain+"=1"), env...)
	return cmd
}

// places runs a test twice: on a directory that fill has filled, and on an overlay with
// these files in its lower directory. Directories of the lower directory cannot be
// renamed.
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
	// again mounts the overlay with a new upper directory, so that all files are
	// unchanged. It does nothing for a directory.
	again func(t *testing.T)
}

// mountOverlay mounts an overlay at base/root, with base/lower and a new upper directory.
func mountOverlay(t *testing.T, base, name string) {
	t.Helper()
	upper, work := filepath.Join(base, "upper"+name), filepath.Join(base, "work"+name)
	for _, d := range []string{upper, work} {
		must(t, os.Mkdir(d, 0o755))
	}
	opts := "lowerdir=" + filepath.Join(base, "lower") + ",upperdir=" + upper + ",workdir=" + work + ",volatile"
	// The parent of this process may have entered a user namespace already.
	ids, err := os.ReadFile("/proc/self/uid_map")
	must(t, err)
	if strings.Contains(string(ids), "4294967295") {
		opts += ",redirect_dir=off,index=off"
	} else {
		opts += ",userxattr"
	}
	must(t, unix.Mount("overlay", filepath.Join(base, "root"), "overlay", 0, opts))
}

// diskDir returns a directory on a file system that supports upper directories of
// overlays.
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
