package overlaytest

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Env describes the privileges of a test.
type Env struct {
	// Name is "userns" or "root".
	Name string
	// UserXattr is set if overlays need user.overlay.* attributes.
	UserXattr bool
}

// envVar marks a test binary as the child and holds the name of its Env.
const envVar = "SHALE_OVERLAYTEST_ENV"

// Run runs a top-level test in each environment that this machine allows. The first is
// root of a new user namespace with 65536 ids. If the tests run as root, the second is
// root without a user namespace. In both, the test has its own mount namespace.
//
// Run starts the test binary again for this one test. The code after Run in the test
// function therefore runs in the parent too.
//
// Without user namespaces the test is skipped, or fails if SHALE_CI is 1.
func Run(t *testing.T, fn func(t *testing.T, env Env)) {
	t.Helper()
	if name := os.Getenv(envVar); name != "" {
		enter(t)
		fn(t, Env{Name: name, UserXattr: name == "userns"})
		return
	}
	t.Run("userns", func(t *testing.T) {
		requireUserNS(t)
		again(t, userNS(t), "userns")
	})
	if os.Geteuid() == 0 {
		t.Run("root", func(t *testing.T) {
			cmd := self(t)
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
			again(t, cmd, "root")
		})
	}
}

// enter makes all mounts private, so that mounts of the test stay in its namespace.
func enter(t *testing.T) {
	t.Helper()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
}

func requireUserNS(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "--mount", "true")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("SHALE_CI") == "1" {
		t.Fatalf("user namespaces are required: %v: %s", err, out)
	}
	t.Skipf("no user namespace: %v: %s", err, out)
}

// userNS returns the command that runs this test in a user namespace with 65536 ids.
func userNS(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := self(t)
	if os.Geteuid() == 0 {
		ids := []syscall.SysProcIDMap{{Size: 65536}}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
			UidMappings: ids,
			GidMappings: ids,
		}
		return cmd
	}
	// unshare calls newuidmap and newgidmap.
	args := append([]string{"--user", "--map-root-user", "--map-auto", "--mount"}, cmd.Args...)
	return exec.CommandContext(t.Context(), "unshare", args...)
}

// self returns the command that runs this test again.
func self(t *testing.T) *exec.Cmd {
	t.Helper()
	top, _, _ := strings.Cut(t.Name(), "/")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), exe, "-test.run", "^"+regexp.QuoteMeta(top)+"$", "-test.v")
}

// again runs the child. The test fails if the child fails or finds no test.
func again(t *testing.T, cmd *exec.Cmd, env string) {
	t.Helper()
	cmd.Env = append(os.Environ(), envVar+"="+env)
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case bytes.Contains(out, []byte("no tests to run")):
		t.Fatalf("the child found no test:\n%s", out)
	case testing.Verbose():
		t.Logf("\n%s", out)
	}
}
