package procs

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	rest := strings.Repeat(" 12", 15)
	for name, tt := range map[string]struct {
		line string
		want stat
		ok   bool
	}{
		"plain":              {"12 (sh) S 7" + rest + " 1 0", stat{parent: 7}, true},
		"ended":              {"12 (sh) Z 7" + rest + " 1 0", stat{parent: 7, ended: true}, true},
		"first thread ended": {"12 (sh) Z 7" + rest + " 2 0", stat{parent: 7}, true},
		"parentheses":        {"12 (a) R 99 (b)) S 7" + rest + " 1 0", stat{parent: 7}, true},
		"newline":            {"12 (a\nZ 1) S 7" + rest + " 1 0", stat{parent: 7}, true},
		"short":              {"12 (sh) S 7" + rest, stat{}, false},
		"empty":              {"", stat{}, false},
		"no number":          {"12 (sh) S x" + rest + " 1 0", stat{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := parse([]byte(tt.line)); ok != tt.ok || ok && got != tt.want {
				t.Errorf("got %+v %v", got, ok)
			}
		})
	}
}

// shell starts a shell and returns after the script has printed "up".
func shell(t *testing.T, script string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		SignalAll(cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("read %q, %v", line, err)
	}
	return cmd, lines
}

func TestSignalAll(t *testing.T) {
	cmd, lines := shell(t, `(trap 'echo bye; exit' TERM; sleep 975 & echo up; wait) & wait; sleep 976`)
	pid := cmd.Process.Pid
	before := descendants(pid)
	if len(before) != 2 || !descends(before[1], before[0]) {
		t.Fatalf("descendants %v", before)
	}
	if slices.Contains(descendants(os.Getpid()), os.Getpid()) || !slices.Contains(descendants(os.Getpid()), before[1]) {
		t.Errorf("descendants of the test: %v", descendants(os.Getpid()))
	}
	if n := SignalAll(pid, unix.SIGTERM); n != 2 {
		t.Errorf("signalled %d processes", n)
	}
	if line, err := lines.ReadString('\n'); err != nil || line != "bye\n" {
		t.Errorf("the handler wrote %q, %v", line, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		now := descendants(pid)
		if len(now) == 1 && !slices.Contains(before, now[0]) && Running(pid) == 1 {
			break // "sleep 976"
		}
		if time.Now().After(end) {
			t.Fatalf("descendants %v, before %v", now, before)
		}
	}
}

func TestHasDefault(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		want   bool
	}{
		"default": {"", true}, "handled": {"trap 'exit' TERM;", false}, "ignored": {"trap '' TERM;", false},
		"another signal": {"trap 'exit' USR1; trap '' INT;", true},
	} {
		t.Run(name, func(t *testing.T) {
			cmd, _ := shell(t, tt.script+" echo up; while :; do sleep 0.05; done")
			if got := HasDefault(cmd.Process.Pid, unix.SIGTERM); got != tt.want {
				status, _ := os.ReadFile(path(cmd.Process.Pid, "status"))
				t.Errorf("got %v:\n%s", got, strings.TrimSpace(string(status)))
			}
		})
	}
	if HasDefault(1<<30, unix.SIGTERM) {
		t.Error("a process that is not there has a default action")
	}
}
