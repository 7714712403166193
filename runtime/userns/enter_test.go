package userns_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/userns"
)

const allCaps = "000001ffffffffff"

// asUser makes cmd run as the user in SHALE_TEST_USER (default: shale-test) if the test
// runs as root. Otherwise cmd runs as the user of the test.
func asUser(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	const variable = "SHALE_TEST_USER"
	name := os.Getenv(variable)
	if name == "" {
		name = "shale-test"
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("set %s to a user: %v", variable, err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	cmd.Dir = "/"
}

// program returns a command that runs a copy of this test binary which any user can
// execute.
func program(t testing.TB, request string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "userns-test-")
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
	exe := filepath.Join(dir, "entered")
	if err := os.WriteFile(exe, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/h", "XDG_RUNTIME_DIR=/x", "USERNS_TEST=" + request}
	cmd.Stderr = os.Stderr
	return cmd
}

func report(t *testing.T, cmd *exec.Cmd) state {
	t.Helper()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var s state
	if err := json.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return s
}

func TestEnterFullMap(t *testing.T) {
	cmd := program(t, "full map", "one", "two words")
	asUser(t, cmd)
	s := report(t, cmd)
	if s.Error != "" || s.Info.Mode != userns.ModeFull || s.Info.UIDs < 65536 || s.Info.GIDs < 65536 || s.Info.SingleID() {
		t.Errorf("info %+v, error %q", s.Info, s.Error)
	}
	checkInside(t, s, cmd)
	if s.Groups != "allow" {
		t.Errorf("setgroups: %s", s.Groups)
	}
	if !slices.Equal(s.Args[1:], []string{"one", "two words"}) {
		t.Errorf("arguments %q", s.Args)
	}
}

func checkInside(t *testing.T, s state, cmd *exec.Cmd) {
	t.Helper()
	if s.UID != 0 || s.GID != 0 || s.Umask != 0o022 {
		t.Errorf("uid %d gid %d umask %o", s.UID, s.GID, s.Umask)
	}
	if s.PID != cmd.Process.Pid {
		t.Errorf("the process changed from %d to %d", cmd.Process.Pid, s.PID)
	}
	if want := "0000000000000000 " + allCaps + " 0000000000000000 "; s.Caps != want {
		t.Errorf("capabilities %s, want %s", s.Caps, want)
	}
	for _, want := range []string{
		"_CONTAINERS_USERNS_CONFIGURED=done", "HOME=/h", "XDG_RUNTIME_DIR=/x",
		"_CONTAINERS_ROOTLESS_UID=" + strconv.Itoa(s.Info.OuterUID),
		"_CONTAINERS_ROOTLESS_GID=" + strconv.Itoa(s.Info.OuterGID),
	} {
		if !slices.Contains(s.Env, want) {
			t.Errorf("environment lacks %s", want)
		}
	}
	for _, kv := range s.Env {
		if strings.HasPrefix(kv, "_SHALE_USERNS=") || strings.HasPrefix(kv, "_SHALE_USERNS_UIDMAP=") {
			t.Errorf("environment still has %s", kv)
		}
	}
}

func TestEnterSingleID(t *testing.T) {
	cmd := program(t, "single id")
	asUser(t, cmd)
	s := report(t, cmd)
	if s.Error != "" || s.Info.Mode != userns.ModeSingle || !s.Info.SingleID() || s.Groups != "deny" {
		t.Errorf("info %+v, setgroups %s, error %q", s.Info, s.Groups, s.Error)
	}
	checkInside(t, s, cmd)
}

func TestEnterFallsBack(t *testing.T) {
	t.Run("no newuidmap", func(t *testing.T) {
		cmd := program(t, "")
		asUser(t, cmd)
		cmd.Env[0] = "PATH=/nowhere"
		s := report(t, cmd)
		if s.Info.Mode != userns.ModeSingle || !strings.Contains(s.Info.Reason, "uidmap") {
			t.Errorf("info %+v, error %q", s.Info, s.Error)
		}
	})
	t.Run("newuidmap without privilege", func(t *testing.T) {
		dir := t.TempDir()
		for _, d := range []string{dir, filepath.Dir(dir)} {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, n := range []string{"newuidmap", "newgidmap"} {
			b, err := os.ReadFile("/usr/bin/" + n)
			if err != nil {
				t.Fatalf("install the package uidmap: %v", err)
			}
			if err := os.WriteFile(filepath.Join(dir, n), b, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := program(t, "")
		asUser(t, cmd)
		cmd.Env[0] = "PATH=" + dir
		s := report(t, cmd)
		if s.Error != "" || s.Info.Mode != userns.ModeSingle || !strings.HasPrefix(s.Info.Reason, "newuidmap: ") {
			t.Errorf("info %+v, error %q", s.Info, s.Error)
		}
	})
}

func TestEnterAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		return // for root only; see TestEnterFullMap for users
	}
	s := report(t, program(t, ""))
	if s.Error != "" || s.Info.Mode != userns.ModeRoot || s.UID != 0 {
		t.Errorf("info %+v, error %q", s.Info, s.Error)
	}
	for _, kv := range s.Env {
		if strings.HasPrefix(kv, "_CONTAINERS_") {
			t.Errorf("storage would take root for rootless: %s", kv)
		}
	}
	cmd := program(t, "identity")
	s = report(t, cmd)
	if s.Error != "" || s.Info.Mode != userns.ModeIdentity || s.Map != "0 0 1 1 1 4294967294" {
		t.Errorf("identity: info %+v, map %s, error %q", s.Info, s.Map, s.Error)
	}
	checkInside(t, s, cmd)
}

// Signals of a shell or a CI system must reach the builder, and they must get its exit
// status.
func TestExitAndSignals(t *testing.T) {
	cmd := program(t, ":exit")
	asUser(t, cmd)
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("exit: %v", err)
	}
	for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGKILL} {
		cmd := program(t, ":wait")
		asUser(t, cmd)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
			t.Errorf("%q, %v", line, err)
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Error(err)
		}
		err = cmd.Wait()
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != sig {
			t.Errorf("%v: %v", sig, err)
		}
	}
}

func BenchmarkEnter(b *testing.B) {
	cmd := program(b, ":exit")
	asUser(b, cmd)
	for b.Loop() {
		c := exec.Command(cmd.Path)
		c.Env, c.Dir, c.SysProcAttr = cmd.Env, cmd.Dir, cmd.SysProcAttr
		var exit *exec.ExitError
		if err := c.Run(); !errors.As(err, &exit) || exit.ExitCode() != 42 {
			b.Fatal(err)
		}
	}
}
