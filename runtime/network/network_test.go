package network_test

import (
	"context"
	"errors"
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

// TestMain runs the tests. If NETWORK_TEST is set, the process is the child of a test
// instead: it sets up a network of that mode and prints the result. The child runs as the
// user in SHALE_TEST_USER (default: shale-test).
func TestMain(m *testing.M) {
	mode, ok := os.LookupEnv("NETWORK_TEST")
	if !ok {
		os.Exit(m.Run())
	}
	if err := inside(network.Mode(mode), os.Getenv("NETWORK_TEST_PASTA")); err != nil {
		fmt.Println("error:", err)
	}
	os.Exit(0)
}

func inside(mode network.Mode, pasta string) error {
	ctx := context.Background()
	if _, err := userns.Enter(ctx, userns.Options{}); err != nil {
		return err
	}
	state, err := os.MkdirTemp("", "network-test-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	dir := filepath.Join(state, "dir")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	memory := filepath.Join(state, "memory")
	fmt.Printf("expected %+v\n", network.Expect(mode, memory, pasta))
	n, err := network.Setup(ctx, network.Options{Mode: mode, Dir: dir, Memory: memory, Pasta: pasta})
	fmt.Printf("then %+v\n", network.Expect(mode, memory, pasta))
	if err != nil {
		return err
	}
	fmt.Printf("mode=%s reason=%q\n", n.Mode, n.Reason)
	if n.Path != "" {
		out, err := exec.Command("nsenter", "--net="+n.Path, "ip", "-br", "address").CombinedOutput()
		fmt.Printf("%s%v\n", out, err)
		out, err = exec.Command("nsenter", "--net="+n.Path, "ip", "-4", "route").CombinedOutput()
		fmt.Printf("routes\n%s%v\n", out, err)
	}
	if err := n.Close(); err != nil {
		return err
	}
	left, _ := filepath.Glob(dir + "/*")
	fmt.Println("left", left)
	return nil
}

func setup(t *testing.T, mode network.Mode, env ...string) string {
	t.Helper()
	return setupIn(t, "", mode, env...)
}

// setupIn sets up a network in a child process and returns the output. If around is not
// empty, the caller must be root. Then the child runs in a new network namespace, in
// which the shell commands in around have set up the machine's network.
func setupIn(t *testing.T, around string, mode network.Mode, env ...string) string {
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
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "NETWORK_TEST=" + string(mode)}, env...)
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
		if around == "" {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		} else {
			cmd.Args = []string{
				"unshare", "--net", "sh", "-ec", around + "\nexec \"$@\"", "sh",
				"setpriv", "--reuid", u.Uid, "--regid", u.Gid, "--clear-groups", exe,
			}
			if cmd.Path, err = exec.LookPath("unshare"); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestHostAndNone(t *testing.T) {
	for _, m := range []network.Mode{network.Host, network.None} {
		expected := fmt.Sprintf("{Mode:%s Reason: Tried:false}", m)
		want := fmt.Sprintf("expected %s\nthen %s\nmode=%s reason=\"\"\nleft []\n", expected, expected, m)
		if got := setup(t, m); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// openTun gives all users access to /dev/net/tun until the test ends, and reports whether
// they have access. Only root can change the access. For another user without access, a
// test must check the error message.
func openTun(t *testing.T) bool {
	t.Helper()
	fi, err := os.Stat("/dev/net/tun")
	if err != nil {
		return false
	}
	mode := fi.Mode().Perm()
	if mode&0o006 == 0o006 {
		return true
	}
	if os.Getuid() != 0 {
		return false
	}
	if err := os.Chmod("/dev/net/tun", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod("/dev/net/tun", mode); err != nil {
			t.Error(err)
		}
	})
	return true
}

func TestPrivate(t *testing.T) {
	open := openTun(t)
	got := setup(t, network.Private)
	if !open {
		// Run by root, this test opens the device and sees the network.
		if !strings.Contains(got, "open /dev/net/tun") {
			t.Errorf("no reason: %s", got)
		}
		return
	}
	for _, want := range []string{"mode=private", "UNKNOWN", "<nil>", "left []", "then {Mode:private Reason: Tried:true}"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %q", got, want)
		}
	}
}

// Without a default route, steps can reach the networks that the machine can reach.
func TestNoDefaultRoute(t *testing.T) {
	if !openTun(t) || os.Getuid() != 0 {
		return // needs root
	}
	tests := []struct {
		name, around string
		routes       string
	}{
		{"no network", "ip link set lo up", "192.0.2.0/30 dev eth0 proto kernel scope link src 192.0.2.2 \n"},
		{
			"a local network", "ip link set lo up; ip link add lan0 type bridge; ip address add 198.51.100.1/24 dev lan0; ip link set lan0 up; ip route add 203.0.113.0/24 via 198.51.100.2",
			"192.0.2.0/30 dev eth0 proto kernel scope link src 192.0.2.2 \n198.51.100.0/24 via 192.0.2.1 dev eth0 \n203.0.113.0/24 via 192.0.2.1 dev eth0 \n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := setupIn(t, tt.around, network.Private)
			if !strings.Contains(got, "\nroutes\n"+tt.routes+"<nil>\n") || !strings.Contains(got, "mode=private") {
				t.Errorf("got %s", got)
			}
		})
	}
}

func TestDefaultSaysWhy(t *testing.T) {
	got := setup(t, network.Default)
	if !strings.Contains(got, "mode=private") && (!strings.Contains(got, `mode=host reason="`) || strings.Contains(got, `reason=""`)) {
		t.Errorf("got %s", got)
	}
}

// rules is a shell script that replaces pasta. RULES is replaced by the checks of a case.
// The script writes its process id when it starts.
const rules = `#!/bin/sh
args=" $* "
while [ $# -gt 0 ]; do
	case $1 in
	--netns) netns=$2 ;;
	--pid) pid=$2 ;;
	esac
	shift
done
die() {
	echo "a line before"
	echo "$*"
	exit 1
}
stat -f -c %t "$netns" | grep -q 6e736673 || die "$netns is no namespace"
RULES
echo $$ >"$pid"
exec sleep 1000
`

// Each case imitates the pasta of some machine: it fails as that one does.
func TestRefusals(t *testing.T) {
	const (
		// like the profiles of Debian 12 and Ubuntu
		appArmor = `case $netns in /run/user/[0-9]*/netns/*) ;; *) die "Couldn't open network namespace $netns: Permission denied" ;; esac
case $pid in /tmp/*/* | /root/* | /home/*) die "PID file open: Permission denied" ;; /tmp/*) ;; *) die "PID file open: Permission denied" ;; esac`
		noRoute = `case $args in *" -i lo "*) ;; *) die "External interface not usable" ;; esac`
		// a policy that allows none of the paths in a view
		elsewhere = `case $netns in /run/user/0/*) die "Couldn't open network namespace $netns: Permission denied" ;; esac`
	)
	tests := []struct {
		name, rules string
		// mode is the expected network for Default. reason is the expected reason if mode
		// is "host".
		mode, reason string
	}{
		{"AppArmor", appArmor, "private", ""},
		{"no default route", noRoute, "private", ""},
		{"AppArmor, no default route", appArmor + "\n" + noRoute, "private", ""},
		{"other rules", elsewhere, "private", ""},
		{"other rules, no default route", elsewhere + "\n" + noRoute, "private", ""},
		{"nothing helps", `die "External interface not usable"`, "host", "pasta: External interface not usable"},
		{"silent", "exit 3", "host", "pasta: exit status 3"},
		{"ends without an error", "exit 0", "host", "pasta: ended at once"},
		{"killed", "kill -9 $$", "host", "pasta: signal: killed"},
	}
	open := openTun(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pasta := fakePasta(t, tt.rules)
			got := setup(t, network.Default, "NETWORK_TEST_PASTA="+pasta)
			if !open {
				tt.mode, tt.reason = "host", "open /dev/net/tun: "
			}
			wants := []string{"mode=" + tt.mode, tt.reason, "left []", "expected {Mode:private Reason: Tried:false}"}
			if tt.mode == "private" {
				wants = append(wants, "then {Mode:private Reason: Tried:true}")
			} else {
				wants = append(wants, "then {Mode:host Reason:"+tt.reason, `reason="`+tt.reason)
			}
			if !open {
				wants = wants[:3]
			}
			for _, want := range wants {
				if !strings.Contains(got, want) {
					t.Errorf("%s lacks %q", got, want)
				}
			}
			got = setup(t, network.Private, "NETWORK_TEST_PASTA="+pasta)
			want := "mode=private"
			if tt.mode == "host" {
				want = "error: private network: " + tt.reason
			}
			if !strings.Contains(got, want) {
				t.Errorf("asked for: %s lacks %q", got, want)
			}
		})
	}
}

// fakePasta writes the script to a directory that a view does not hide.
func fakePasta(t *testing.T, text string) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "network-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "pasta")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte(strings.ReplaceAll(rules, "RULES", text)), 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// A recorded result is used only for the program that it was recorded for.
func TestExpect(t *testing.T) {
	if !openTun(t) && os.Getuid() != 0 {
		if got := network.Expect(network.Default, "", "/bin/true"); got.Mode != network.Host || !strings.Contains(got.Reason, "/dev/net/tun") {
			t.Errorf("without the device: %+v", got)
		}
		return // the rest of the test needs the device, which root can open
	}
	memory := filepath.Join(t.TempDir(), "memory")
	want := network.Outlook{Mode: network.Private}
	for name, content := range map[string]string{
		"no file":         "",
		"garbage":         "{",
		"other key":       `{"Key":"1","Reason":"other times"}`,
		"not even a file": "dir",
	} {
		_ = os.RemoveAll(memory)
		var err error
		switch content {
		case "":
		case "dir":
			err = os.Mkdir(memory, 0o700)
		default:
			err = os.WriteFile(memory, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := network.Expect(network.Default, memory, "/bin/true"); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
	t.Setenv("PATH", "/nonexistent")
	if got := network.Expect(network.Default, memory, ""); got.Mode != network.Host || !strings.Contains(got.Reason, "pasta is not installed") {
		t.Errorf("without pasta: %+v", got)
	}
	if got := network.Expect(network.Private, memory, ""); got != want {
		t.Errorf("without pasta, asked for: %+v", got)
	}
}
