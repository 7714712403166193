package network_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/shale-build/shale/runtime/network"
	"github.com/shale-build/shale/runtime/userns"
)

// TestMain is also the program that sets up a network as the user of
// SHALE_TEST_USER (else shale-test) and prints what came of it.
func TestMain(m *testing.M) {
	mode, ok := os.LookupEnv("NETWORK_TEST")
	if !ok {
		os.Exit(m.Run())
	}
	if err := inside(network.Mode(mode)); err != nil {
		fmt.Println("error:", err)
	}
	os.Exit(0)
}

func inside(mode network.Mode) error {
	ctx := context.Background()
	if _, err := userns.Enter(ctx, userns.Options{}); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "network-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := network.Setup(ctx, network.Options{Mode: mode, Dir: dir})
	if err != nil {
		return err
	}
	fmt.Printf("mode=%s reason=%q\n", n.Mode, n.Reason)
	if n.Path != "" {
		out, err := exec.Command("nsenter", "--net="+n.Path, "ip", "-br", "address").CombinedOutput()
		fmt.Printf("%s%v\n", out, err)
	}
	if err := n.Close(); err != nil {
		return err
	}
	left, _ := filepath.Glob(dir + "/*")
	fmt.Println("left", left)
	return nil
}

func setup(t *testing.T, mode network.Mode) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "network-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(dir, "network.test")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NETWORK_TEST=" + string(mode)}
	if os.Getuid() == 0 {
		name := os.Getenv("SHALE_TEST_USER")
		if name == "" {
			name = "shale-test"
		}
		u, err := user.Lookup(name)
		if err != nil {
			t.Fatalf("set SHALE_TEST_USER: %v", err)
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestHostAndNone(t *testing.T) {
	for _, m := range []network.Mode{network.Host, network.None} {
		if got, want := setup(t, m), fmt.Sprintf("mode=%s reason=\"\"\nleft []\n", m); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestPrivate(t *testing.T) {
	fi, err := os.Stat("/dev/net/tun")
	open := err == nil && fi.Mode().Perm()&0o006 == 0o006
	if !open && os.Getuid() == 0 && err == nil {
		if err := os.Chmod("/dev/net/tun", 0o666); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Chmod("/dev/net/tun", fi.Mode().Perm()); err != nil {
				t.Error(err)
			}
		})
		open = true
	}
	got := setup(t, network.Private)
	if !open {
		// The same test as root opens the device and sees the network.
		if !strings.Contains(got, "open /dev/net/tun") {
			t.Errorf("no reason: %s", got)
		}
		return
	}
	for _, want := range []string{"mode=private", "UNKNOWN", "<nil>", "left []"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %q", got, want)
		}
	}
}

func TestDefaultSaysWhy(t *testing.T) {
	if got := setup(t, network.Default); !strings.Contains(got, "mode=private") && !strings.Contains(got, `mode=host reason="no private network: `) {
		t.Errorf("got %s", got)
	}
}
