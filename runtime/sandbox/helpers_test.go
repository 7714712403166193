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

// mknod makes a node of the first virtio disk.
func mknod(path string) error {
	return unix.Mknod(path, unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0)))
}

// exitOf runs s to its end, without a limit in time.
func exitOf(r *sandbox.Runner, s sandbox.Spec) int {
	code, err := r.Run(context.Background(), s)
	if err != nil {
		return -1
	}
	return code
}

// running tells whether a process has that command line.
func running(cmdline string) bool {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		// A shell has the words in one argument, with spaces.
		if b, err := os.ReadFile(p); err == nil && strings.Contains(string(b), cmdline) {
			return true
		}
	}
	return false
}

// noProcess fails when a process with that command line is left.
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

// waitProcess returns when a process has that command line.
func waitProcess(t *testing.T, cmdline string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !running(cmdline); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not running: %q", cmdline)
			return
		}
	}
}

// link adds a command of busybox.
func link(t *testing.T, root, name string) {
	t.Helper()
	if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
		t.Fatal(err)
	}
}

// setuid puts a set-uid su at /tmp/su, which asks root for no password.
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
