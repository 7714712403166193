package sandbox_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/runtime/userns"
)

// The tests run in the namespaces that shale enters. Started by root, they run three
// times: as root, as a user with subordinate ids (SHALE_TEST_USER, default: shale-test)
// and as a user without (SHALE_TEST_NOSUB, default: nobody). Started by another user,
// they run once, as that user.
var entered userns.Info

func TestMain(m *testing.M) {
	runHostile()
	info, err := userns.Enter(context.Background(), userns.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	entered = info
	fmt.Fprintf(os.Stderr, "mode %q uid %d %s\n", info.Mode, info.OuterUID, info.Reason)
	code := m.Run()
	if info.Mode == userns.ModeRoot && os.Getenv("SANDBOX_TEST_CHILD") == "" {
		for _, env := range [][2]string{{"SHALE_TEST_USER", "shale-test"}, {"SHALE_TEST_NOSUB", "nobody"}} {
			if env[0] == "SHALE_TEST_USER" && os.Getenv("SHALE_TESTED_AS_USER") != "" {
				continue // set by tests/run, which runs them itself
			}
			name := os.Getenv(env[0])
			if name == "" {
				name = env[1]
			}
			if err := runAs(name); err != nil {
				fmt.Fprintf(os.Stderr, "tests as %s: %v\n", name, err)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// runAs runs this test binary again as another user, with the same flags.
func runAs(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		if os.Getenv("SHALE_CI") != "1" {
			fmt.Fprintf(os.Stderr, "not tested as %s: %v\n", name, err)
			return nil
		}
		return err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	dir, err := os.MkdirTemp("/tmp", "sandbox-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, uid, gid); err != nil {
		return err
	}
	exe := filepath.Join(dir, "sandbox.test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile(exe, b, 0o755); err != nil { // #nosec G306 -- to be executed by the user
		return err
	}
	var args []string
	for _, a := range os.Args[1:] {
		if !strings.Contains(a, "testlogfile") && !strings.Contains(a, "coverprofile") && !strings.Contains(a, "gocoverdir") {
			args = append(args, a)
		}
	}
	cmd := exec.Command(exe, args...) // #nosec G204 -- our own flags
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "SANDBOX_TEST_CHILD=1", "SHALE_CI=" + os.Getenv("SHALE_CI")}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}} // #nosec G115
	return cmd.Run()
}

func newRunner(t testing.TB) *sandbox.Runner {
	t.Helper()
	r, err := sandbox.New(t.Context(), sandbox.Options{StateDir: filepath.Join(t.TempDir(), "state")})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newRootfs creates a root file system with busybox and few other files.
func newRootfs(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "rootfs")
	for _, d := range []string{"bin", "dev", "etc", "tmp", "home", "proc", "sys"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	src, err := os.Open("/bin/busybox")
	if err != nil {
		t.Fatalf("install the package busybox-static: %v", err)
	}
	defer src.Close()
	dst, err := os.OpenFile(filepath.Join(root, "bin/busybox"), os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
	if err := dst.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"sh", "cat", "ls", "id", "hostname", "mknod", "sleep", "true", "false", "grep", "touch", "mkdir", "rm", "mv", "ln", "stat", "mount", "dd", "ps", "kill", "pwd", "env", "tty", "stty", "head", "chmod", "umask", "ip", "wc", "df", "readlink"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", n)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

const pathEnv = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"

// shell returns a Spec that runs a script.
func shell(root, script string) sandbox.Spec {
	return sandbox.Spec{
		Rootfs: root, Args: []string{"/bin/sh", "-c", script}, Env: []string{pathEnv},
		Hostname: "box", SingleID: entered.SingleID(),
	}
}

// output runs s and returns both output streams. The exit status must be 0.
func output(t *testing.T, r *sandbox.Runner, s sandbox.Spec) string {
	t.Helper()
	code, out, err := run(t, r, s)
	if err != nil || code != 0 {
		t.Fatalf("code %d, error %v, output:\n%s", code, err, out)
	}
	return out
}

func run(t *testing.T, r *sandbox.Runner, s sandbox.Spec) (int, string, error) {
	t.Helper()
	var b bytes.Buffer
	s.Stdout, s.Stderr = &b, &b
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code, err := r.Run(ctx, s)
	return code, b.String(), err
}
