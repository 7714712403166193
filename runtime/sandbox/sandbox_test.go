package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/runtime/userns"
)

func TestProcess(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	tests := []struct {
		name   string
		script string
		want   string
		adjust func(*sandbox.Spec)
	}{
		{name: "first process", script: "echo $$", want: "1\n"},
		{name: "ids", script: "id -u; id -g", want: "0\n0\n"},
		{name: "hostname", script: "hostname", want: "box\n"},
		{name: "umask", script: "umask", want: "0022\n"},
		{name: "working directory", script: "pwd", want: "/\n"},
		{name: "capabilities", script: "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status", want: "CapInh:\t0000000000000000\n" +
			"CapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n"},
		{name: "no new privileges", script: "grep NoNewPrivs /proc/self/status", want: "NoNewPrivs:\t0\n"},
		{name: "seccomp", script: "grep Seccomp: /proc/self/status", want: "Seccomp:\t2\n"},
		{name: "privileged has no seccomp", script: "grep Seccomp: /proc/self/status", want: "Seccomp:\t0\n", adjust: func(s *sandbox.Spec) { s.Privileged = true }},
		{name: "environment", script: "env | grep -v -e ^PWD -e ^SHLVL", want: pathEnv + "\nA=b c\nHOME=/\n", adjust: func(s *sandbox.Spec) { s.Env = append(s.Env, "A=b c") }},
		{name: "descriptors", script: "ls /proc/1/fd", want: "0\n1\n2\n", adjust: func(s *sandbox.Spec) { s.Args = []string{"/bin/ls", "/proc/self/fd"} }},
		{name: "null input", script: "cat; readlink /proc/self/fd/0", want: "/dev/null\n"},
		{name: "input", script: "cat", want: "hello", adjust: func(s *sandbox.Spec) { s.Stdin = strings.NewReader("hello") }},
		{name: "loopback only", script: "ls /sys/class/net", want: "lo\n", adjust: func(s *sandbox.Spec) { s.Network = sandbox.NoNetwork }},
		{name: "host network", script: "ls /sys/class/net | grep -c .", want: count(t, "/sys/class/net"), adjust: func(s *sandbox.Spec) { s.Network = sandbox.HostNetwork }},
		{name: "masked", script: "head -c1 /proc/kcore 2>/dev/null; wc -c </proc/keys; ls /sys/firmware", want: "0\n"},
		{name: "shm", script: "df -k /dev/shm | grep -c ' 65536 '", want: "1\n"},
		{name: "own shm size", script: "df -k /dev/shm | grep -c ' 1024 '", want: "1\n", adjust: func(s *sandbox.Spec) { s.ShmSize = 1 << 20 }},
		{name: "device links", script: "readlink /dev/fd; readlink /dev/stdin; readlink /dev/ptmx", want: "/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n"},
		{name: "null device", script: "echo x >/dev/null && head -c3 /dev/zero | wc -c", want: "3\n"},
		{name: "limit", script: "ulimit -n", want: "64\n", adjust: func(s *sandbox.Spec) { s.Rlimits = []sandbox.Rlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}} }},
		{name: "writing through stdout's path", script: "echo x >/dev/stdout", want: "x\n"},
		{name: "order of both streams", script: "echo 1; echo 2 >&2; echo 3", want: "1\n2\n3\n"},
		{name: "host name of the kernel is ours", script: "hostname other; hostname", want: "hostname: sethostname: Operation not permitted\nbox\n"},
		{name: "sysctl is read-only", script: "echo 1 >/proc/sys/kernel/panic || echo refused", want: "/bin/sh: can't create /proc/sys/kernel/panic: Read-only file system\nrefused\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := shell(root, tt.script)
			if tt.adjust != nil {
				tt.adjust(&s)
			}
			got := output(t, r, s)
			if tt.name == "environment" {
				got = sorted(got)
				tt.want = sorted(tt.want)
			}
			if tt.name == "descriptors" {
				// ls itself has the directory open.
				got = strings.TrimSuffix(got, "3\n")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func count(t *testing.T, dir string) string {
	t.Helper()
	e, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(len(e)) + "\n"
}

func TestExitCode(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	if err := os.WriteFile(filepath.Join(root, "bin/text"), []byte("no program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/plain"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "bin/script"), []byte("#!/bin/nothing\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		args    []string
		code    int
		message string // of an ExecError
	}{
		{"success", []string{"true"}, 0, ""},
		{"failure", []string{"false"}, 1, ""},
		{"status", []string{"sh", "-c", "exit 42"}, 42, ""},
		{"status 255", []string{"sh", "-c", "exit 255"}, 255, ""},
		{"signal", []string{"sh", "-c", "sh -c 'kill -9 $$'; exit $?"}, 137, ""},
		{"not found in path", []string{"foo"}, 127, `exec: "foo": executable file not found in $PATH`},
		{"no such file", []string{"/foo"}, 127, `exec: "/foo": stat /foo: no such file or directory`},
		{"not executable", []string{"/bin/plain"}, 126, `exec: "/bin/plain": permission denied`},
		{"directory", []string{"/etc"}, 126, `exec: "/etc": is a directory`},
		{"no program", []string{"text"}, 126, `exec /bin/text: exec format error`},
		{"no interpreter", []string{"script"}, 127, `exec /bin/script: no such file or directory`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := shell(root, "")
			s.Args = tt.args
			code, out, err := run(t, r, s)
			var execErr *sandbox.ExecError
			switch {
			case tt.message == "" && err != nil:
				t.Errorf("error %v, output %s", err, out)
			case tt.message != "" && (!errors.As(err, &execErr) || execErr.Message != tt.message):
				t.Errorf("error %v, want %q", err, tt.message)
			}
			if code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
		})
	}
}

// Only a process outside the pid namespace can kill its first process.
func TestCancel(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	var out bytes.Buffer
	s := shell(root, "trap '' TERM INT; sleep 987 & sleep 987")
	s.Stdout = &out
	time.AfterFunc(300*time.Millisecond, func() { cancel(stop) })
	start := time.Now()
	code, err := r.Run(ctx, s)
	if !errors.Is(err, stop) || code != 137 {
		t.Errorf("code %d, error %v", code, err)
	}
	if d := time.Since(start); d > 1300*time.Millisecond {
		t.Errorf("took %v", d)
	}
	noProcess(t, "sleep\x00987")
}

// A command must get time to stop after the signal, but only until the timeout.
func TestStopSignal(t *testing.T) {
	stop := errors.New("stop")
	for _, tt := range []struct {
		name, script string
		code         int
		want         string
	}{
		{"obeyed", "trap 'echo bye; exit 3' USR1; echo up; while :; do sleep 0.05; done", 3, "up\nbye\n"},
		{"ignored", "trap '' USR1; echo up; while :; do sleep 0.05; done", 137, "up\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRunner(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			out := &watched{mark: "up\n", seen: func() { cancel(stop) }}
			s := shell(newRootfs(t), tt.script)
			s.Stdout, s.StopSignal, s.StopTimeout = out, syscall.SIGUSR1, 3*time.Second
			code, err := r.Run(ctx, s)
			if !errors.Is(err, stop) || code != tt.code || out.text.String() != tt.want {
				t.Errorf("code %d, error %v, output %q", code, err, out.text.String())
			}
		})
	}
}

// If Grace returns a time for the cause, all processes must get SIGTERM and that time.
// The first process must not continue with its next command.
func TestGrace(t *testing.T) {
	gentle, harsh := errors.New("gentle"), errors.New("harsh")
	for _, tt := range []struct {
		name, script string
		cause        error
		grace        time.Duration
		code         int
		want         string
	}{
		{"obeyed", "trap 'echo bye; exit 3' TERM; echo up; sleep 983; echo on", gentle, time.Minute, 3, "up\nbye\n"},
		{"obeyed by a child", "sh -c \"trap 'echo bye; exit' TERM; echo up; sleep 983 & wait\"; echo on; sleep 983", gentle, time.Minute, 137, "up\nbye\n"},
		{"no handler", "echo up; sleep 983; echo on; sleep 983", gentle, time.Minute, 137, "up\n"},
		{"no child", "echo up; exec sleep 983", gentle, time.Minute, 137, "up\n"},
		{"ignored", "trap '' TERM; echo up; sleep 983", gentle, 300 * time.Millisecond, 137, "up\n"},
		{"ignored by a child", "sh -c \"trap '' TERM; echo up; sleep 983\"; echo on", gentle, 300 * time.Millisecond, 137, "up\n"},
		{"another cause", "trap 'echo bye; exit 3' TERM; echo up; sleep 983", harsh, time.Minute, 137, "up\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRunner(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			// A shell that gets the signal before it waits for its child would wait
			// forever.
			out := &watched{mark: "up\n", seen: func() {
				go func() {
					waitProcess(t, "sleep\x00983")
					cancel(tt.cause)
				}()
			}}
			s := shell(newRootfs(t), tt.script)
			s.Stdout = out
			s.Grace = func(cause error) time.Duration {
				if errors.Is(cause, gentle) {
					return tt.grace
				}
				return 0
			}
			start := time.Now()
			code, err := r.Run(ctx, s)
			if !errors.Is(err, tt.cause) || code != tt.code || out.text.String() != tt.want {
				t.Errorf("code %d, error %v, output %q", code, err, out.text.String())
			}
			if d := time.Since(start); d > 30*time.Second {
				t.Errorf("took %v", d)
			}
			noProcess(t, "sleep\x00983")
		})
	}
}

// watched calls seen when mark is written to it.
type watched struct {
	text bytes.Buffer
	mark string
	seen func()
}

func (w *watched) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.mark) {
		w.seen()
	}
	return w.text.Write(p)
}

func TestBackgroundProcessesEnd(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	start := time.Now()
	output(t, r, shell(root, "sleep 986 & (sleep 986 &) ; true"))
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("waited for a background process: %v", d)
	}
	noProcess(t, "sleep\x00986")
}

func TestNothingLeft(t *testing.T) {
	state := filepath.Join(t.TempDir(), "state")
	r, err := sandbox.New(t.Context(), sandbox.Options{StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	root := newRootfs(t)
	output(t, r, shell(root, "true"))
	s := shell(root, "")
	s.ID = "leftover"
	s.Args = []string{"/nothing"}
	if _, _, err := run(t, r, s); err == nil {
		t.Error("no error for a missing command")
	}
	after, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(before), string(after)); diff != "" {
		t.Error(diff)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if e, err := os.ReadDir(state); err != nil || len(e) != 0 {
		t.Errorf("state directory: %v, %v", e, err)
	}
	if m, _ := filepath.Glob("/sys/fs/cgroup/*/shale-leftover"); len(m) != 0 {
		t.Errorf("cgroups left: %v", m)
	}
}

func TestMounts(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "f"), []byte("data\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bind := func(target string, ro bool) func(*sandbox.Spec) {
		return func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Source: src, Target: target, ReadOnly: ro}}
		}
	}
	file := filepath.Join(src, "f")
	tests := []struct {
		name, script, want string
		adjust             func(*sandbox.Spec)
	}{
		{"read-write", "echo x >/m/g; cat /m/f /m/g", "data\nx\n", bind("/m", false)},
		{"read-only", "cat /a/b/m/f; touch /a/b/m/h", "data\ntouch: /a/b/m/h: Read-only file system\n", bind("/a/b/m", true)},
		{"file", "cat /run/secrets/s", "data\n", func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Source: file, Target: "/run/secrets/s", ReadOnly: true}}
		}},
		{"hosts", "cat /etc/hosts; cat /etc/resolv.conf", "data\ndata\n", func(s *sandbox.Spec) { s.Hosts, s.ResolvConf = file, file }},
		{"tmpfs", "stat -c %a /t; df -k /t | grep -c ' 1024 '", "1777\n1\n", func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Type: sandbox.Tmpfs, Target: "/t", Size: 1 << 20}}
		}},
		{"tmpfs keeps a mode", "stat -c %a /home", "755\n", func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Type: sandbox.Tmpfs, Target: "/home"}}
		}},
		{"nested", "cat /m/f; ls /m; touch /m/t/x; ls /m/t", "data\nf\ng\nt\nx\n", func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Source: src, Target: "/m"}, {Type: sandbox.Tmpfs, Target: "/m/t"}}
		}},
		{"below dev", "cat /dev/pipes/EOF", "data\n", func(s *sandbox.Spec) {
			s.Mounts = []sandbox.Mount{{Source: file, Target: "/dev/pipes/EOF", ReadOnly: true}}
		}},
		{"read-only root", "touch /x /m/y; ls /m", "touch: /x: Read-only file system\n", func(s *sandbox.Spec) {
			s.ReadonlyRootfs = true
			s.Mounts = []sandbox.Mount{{Type: sandbox.Tmpfs, Target: "/m"}}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := shell(root, tt.script)
			tt.adjust(&s)
			_, got, err := run(t, r, s)
			if err != nil {
				t.Fatal(err)
			}
			if tt.name == "read-only root" {
				got = strings.TrimSuffix(got, "y\n")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCwdIsCreated(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	s := shell(root, "pwd; stat -c %u:%a . ..; touch ok")
	s.Cwd = "/srv/app/../app"
	want := "/srv/app\n0:755\n0:755\n"
	if !entered.SingleID() {
		s.UID, s.GID = 1000, 1000
		want = "/srv/app\n1000:755\n1000:755\n"
	}
	if diff := cmp.Diff(want, output(t, r, s)); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(filepath.Join(root, "srv/app/ok")); err != nil {
		t.Error(err)
	}
}

func TestCwdLinkStaysInside(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	out := t.TempDir()
	for name, target := range map[string]string{"abs": out, "fd": "/proc/self/fd/8", "up": "../../../../../.." + out} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		s := shell(root, "touch here")
		s.Cwd = "/" + name + "/new"
		_, _, err := run(t, r, s) // an error is also a correct result
		if e, _ := os.ReadDir(out); len(e) != 0 {
			t.Fatalf("%s: %v outside (error %v)", name, e, err)
		}
	}
}

func TestUserWithoutID(t *testing.T) {
	if !entered.SingleID() {
		return
	}
	r, root := newRunner(t), newRootfs(t)
	s := shell(root, "true")
	s.UID = 1000
	if _, _, err := run(t, r, s); !errors.Is(err, sandbox.ErrUnmapped) {
		t.Errorf("error %v", err)
	}
}

func TestOtherUserHasNoCapabilities(t *testing.T) {
	if entered.SingleID() {
		return // see TestUserWithoutID
	}
	r, root := newRunner(t), newRootfs(t)
	s := shell(root, "id -u; id -G; grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status | grep -c 0000000000000000; echo x >/dev/stderr")
	s.UID, s.GID, s.AdditionalGIDs = 33, 34, []uint32{50, 51}
	if diff := cmp.Diff("33\n34 50 51\n4\nx\n", output(t, r, s)); diff != "" {
		t.Error(diff)
	}
}

// A step may create a device node for the disk, as with Docker, but must not be able to
// use it.
func TestHostDevicesAreOutOfReach(t *testing.T) {
	if entered.Mode != userns.ModeRoot {
		// In other modes the kernel refuses to create the node.
		r, root := newRunner(t), newRootfs(t)
		if code, out, err := run(t, r, shell(root, "mknod /tmp/null c 1 3")); err != nil || code == 0 {
			t.Errorf("code %d, error %v, %s", code, err, out)
		}
		return
	}
	for _, tt := range []struct {
		name   string
		cgroup bool
		script string
		want   string
	}{
		{"with cgroup", true, disk + "mknod /tmp/null c 1 3 && echo x >/tmp/null && echo null", "null\n"},
		{"without cgroup", false, disk + "mknod /tmp/null c 1 3 2>/dev/null || echo no node", "no node\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := sandbox.New(t.Context(), sandbox.Options{StateDir: filepath.Join(t.TempDir(), "s"), NoDeviceCgroup: !tt.cgroup})
			if err != nil {
				t.Fatal(err)
			}
			root := newRootfs(t)
			// The image contains a device node.
			if err := mknod(filepath.Join(root, "tmp/given")); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, output(t, r, shell(root, tt.script))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

const disk = `mknod /tmp/disk b 254 0 2>/dev/null
for n in disk given; do dd if=/tmp/$n of=/dev/null bs=512 count=1 2>/dev/null && echo read $n; done
`

func TestTerminal(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	s := shell(root, "tty; stty size; read x; echo got $x")
	s.Terminal, s.Size = true, sandbox.WinSize{Width: 91, Height: 17}
	s.Stdin = strings.NewReader("line\n")
	got := output(t, r, s)
	for _, want := range []string{"/dev/pts/0", "17 91", "got line"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}

func TestParallel(t *testing.T) {
	r := newRunner(t)
	errs := make(chan error)
	for range 6 {
		root := newRootfs(t)
		go func() {
			_, err := r.Run(t.Context(), shell(root, "true"))
			errs <- err
		}()
	}
	for range 6 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkRunTrue(b *testing.B) {
	r, root := newRunner(b), newRootfs(b)
	for b.Loop() {
		s := shell(root, "")
		s.Args, s.Network = []string{"/bin/true"}, sandbox.HostNetwork
		if code, err := r.Run(b.Context(), s); code != 0 || err != nil {
			b.Fatal(code, err)
		}
	}
}
