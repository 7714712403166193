package inplace

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// If the cause permits it, all processes of a command receive SIGTERM first and are
// killed later. Otherwise they are killed at once.
func TestGrace(t *testing.T) {
	gentle, harsh := errors.New("gentle"), errors.New("harsh")
	for _, tt := range []struct {
		name, script string
		cause        error
		grace        time.Duration
		want         string
	}{
		{"obeyed", "trap 'echo bye; exit 3' TERM; echo up; sleep 984; echo on", gentle, time.Minute, "up\nbye\n"},
		{"obeyed by a child", "sh -c \"trap 'echo bye; exit' TERM; echo up; sleep 984 & wait\" & wait; echo on", gentle, time.Minute, "up\n"},
		{"no handler", "echo up; sleep 984; echo on; sleep 984", gentle, time.Minute, "up\n"},
		{"ignored", "trap '' TERM; echo up; sleep 984", gentle, 300 * time.Millisecond, "up\n"},
		{"another cause", "trap 'echo bye; exit 3' TERM; echo up; sleep 984", harsh, time.Minute, "up\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			// A shell that receives the signal before it waits for its child would wait
			// for ever.
			out := &watched{mark: "up\n", seen: func() {
				go func() {
					waitProcess(t, "sleep\x00984")
					cancel(tt.cause)
				}()
			}}
			start := time.Now()
			_, err := Run(ctx, Command{
				Args: []string{"/bin/sh", "-c", tt.script}, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", Stdout: out,
				Grace: func(cause error) time.Duration {
					if errors.Is(cause, gentle) {
						return tt.grace
					}
					return 0
				},
			})
			got := out.String()
			if tt.name == "obeyed by a child" {
				got = strings.TrimSuffix(got, "bye\n") // the command may end first, and then its child is killed
			}
			if !errors.Is(err, tt.cause) || got != tt.want {
				t.Errorf("error %v, output %q", err, got)
			}
			if d := time.Since(start); d > 8*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// watched calls seen each time that mark is written to it.
type watched struct {
	mark string
	seen func()

	mu   sync.Mutex
	text bytes.Buffer
}

func (w *watched) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.mark) {
		w.seen()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// waitProcess returns as soon as a process has the command line.
func waitProcess(t *testing.T, cmdline string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		files, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Error(err)
			return
		}
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(data), cmdline) {
				return
			}
		}
	}
	t.Errorf("not running: %q", cmdline)
}
