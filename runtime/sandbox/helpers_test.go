package sandbox_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/sandbox"
)

func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// mknod creates a device node of the first virtio disk.
func mknod(path string) error {
	return unix.Mknod(path, unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0)))
}

// exitOf runs s without a time limit and returns its exit status.
func exitOf(r *sandbox.Runner, s sandbox.Spec) int {
	code, err := r.Run(context.Background(), s)
	if err != nil {
		return -1
	}
	return code
}

// running reports whether a process has a command line that contains cmdline.
func running(cmdline string) bool {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		// A shell's script is one argument, with spaces between the words, so it does not
		// match.
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), cmdline) {
			return true
		}
	}
	return false
}

// noProcess fails the test if a process with that command line still runs after two
// seconds.
func noProcess(t *testing.T, cmdline string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Second)
	for running(cmdline) {
		if time.Now().After(deadline) {
			t.Fatalf("still running: %q", cmdline)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// waitProcess waits until a process has that command line.
func waitProcess(t *testing.T, cmdline string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !running(cmdline); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not running: %q", cmdline)
			return
		}
	}
}

// link adds a command of busybox to the root file system.
func link(t *testing.T, root, name string) {
	t.Helper()
	if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
		t.Fatal(err)
	}
}

// setuid creates a set-user-ID su at /tmp/su, which does not ask for root's password.
func setuid(t *testing.T, root string) {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(root, "bin/busybox"))
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(root, "tmp/su")
	if err := os.WriteFile(at, program, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root::0:0:r:/:/bin/sh\nu:x:1000:100:u:/:/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(at, 0o755|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
}
