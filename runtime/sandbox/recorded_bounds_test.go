package sandbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/runtime/sandbox"
)

// A step's processes may do anything while their system calls are answered. The step must
// still end, no file outside its root file system may change, and no file descriptor may
// leak.
func TestRecordedHostile(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ program, arg, want string }{
		{program: "rewrite"}, // its argument is the directory outside
		{program: "close"},
		{program: "exec", arg: "12", want: "ok"},
		{program: "die", want: "ok"},
		{program: "shut", want: "ok"},
		{program: "slack", want: "ok"},
		{program: "steal", want: "ok"},
		{program: "unreadable", want: "ok"},
		{program: "bomb", arg: "6"},
	}
	r := newRunner(t)
	// A first step opens the descriptors that the runner keeps.
	if code, out, err := runIn(t, r, recordedSpec(newRootfs(t), "true")); err != nil || code != 0 {
		t.Fatalf("code %d, %v\n%s", code, err, out)
	}
	for _, tt := range tests {
		t.Run(tt.program, func(t *testing.T) {
			root, mounts := usrRootfs(t)
			outside := filepath.Join(filepath.Dir(root), "outside")
			if err := os.Mkdir(outside, 0o700); err != nil {
				t.Fatal(err)
			}
			var was, is unix.Stat_t
			if err := unix.Lstat(outside, &was); err != nil {
				t.Fatal(err)
			}
			arg := tt.arg
			if tt.program == "rewrite" {
				arg = outside
			}
			s := recordedSpec(root, "")
			s.Mounts = append(mounts, sandbox.Mount{Source: exe, Target: "/hostile", ReadOnly: true})
			// If a bug makes the bomb larger, the machine must survive it.
			s.Rlimits = []sandbox.Rlimit{{Type: "RLIMIT_NPROC", Soft: 2000, Hard: 2000}}
			s.Args = []string{"/usr/bin/perl", "-e", `exec {"/hostile"} "hostile", @ARGV`, tt.program, arg}
			before := descriptors(t)
			code, out, err := runIn(t, r, s)
			if err != nil || code != 0 || out != tt.want {
				t.Errorf("code %d, %v\n%s", code, err, out)
			}
			for range 100 { // some descriptors are closed a little later
				if len(gained(before, descriptors(t))) == 0 {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if more := gained(before, descriptors(t)); len(more) > 0 {
				t.Errorf("descriptors left open: %v", more)
			}
			if err := unix.Lstat(outside, &is); err != nil || is != was {
				t.Errorf("the directory outside was changed: %+v, now %+v, %v", was, is, err)
			}
			if _, err := unix.Lgetxattr(outside, recorded.Attribute, nil); err == nil {
				t.Error("a directory outside has an owner recorded")
			}
			if left := processesOf(t, exe); len(left) > 0 {
				t.Errorf("left running: %v", left)
			}
		})
	}
}

// A step must not see the recorded owners of files outside.
func TestRecordedShowsNothingOutside(t *testing.T) {
	root, mounts := usrRootfs(t)
	outside := filepath.Join(filepath.Dir(root), "outside")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := recorded.New().Chown(unix.AT_FDCWD, outside, 4711, 4712); err != nil {
		t.Fatal(err)
	}
	up := strings.Repeat("../", 20) + outside[1:]
	s := recordedSpec(root, "")
	s.Mounts = mounts
	s.Args = []string{"/usr/bin/perl", "-e", `
for my $p ("/proc/self/", "/proc/self/fd/", "/proc/thread-self/", "/dev/fd/", "/proc/self/root/", "/proc/self/cwd/", "/proc/1/", "/", "") {
  for my $at ("$p` + up + `", "$p./fd/../` + up + `") {
    my @l = lstat $at; my @s = stat $at;
    print "$at: $l[4] $s[4]\n" if @l || @s;
  }
}`}
	for _, user := range []uint32{0, 1000} {
		s.UID, s.GID = user, user
		if code, out, err := runRecorded(t, s); err != nil || code != 0 || out != "" {
			t.Errorf("code %d, %v\n%s", code, err, out)
		}
	}
}

// descriptors counts this process's file descriptors by the kind of file.
func descriptors(t *testing.T) map[string]int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range list {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the descriptor of the directory itself
		}
		kind, _, _ := strings.Cut(to, "[") // for example pipe:[123]
		count[kind]++
	}
	return count
}

// gained lists the kinds of file that after has more of than before.
func gained(before, after map[string]int) (more []string) {
	for to, n := range after {
		if n > before[to] {
			more = append(more, fmt.Sprintf("%d of %s", n-before[to], to))
		}
	}
	return more
}

// processesOf lists the processes that run exe as a step's program.
func processesOf(t *testing.T, exe string) (left []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if line, err := os.ReadFile(l); err == nil && strings.HasPrefix(string(line), "hostile\x00") {
			left = append(left, l+" of "+exe)
		}
	}
	return left
}
