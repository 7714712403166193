package display

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/console"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/progress"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// epoch is the start of every recorded build. The displays show only differences of
// times.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(d time.Duration) *time.Time {
	t := epoch.Add(d)
	return &t
}

// replay sends the events of a recorded build: a cached step, a step with output, a
// pull with a status, and a last step, which fails if fail is set.
func replay(s progress.Sink, fail bool) {
	step := func(name string) progress.Vertex {
		return progress.Vertex{Digest: digest.FromString(name), Name: name}
	}
	load := step("[internal] load build definition from Dockerfile")
	load.Started = at(0)
	s.Vertex(load)
	s.Status(progress.Status{ID: "transferring dockerfile:", Vertex: load.Digest, Current: 96, Timestamp: *at(0), Started: at(0)})
	s.Status(progress.Status{ID: "transferring dockerfile:", Vertex: load.Digest, Current: 96, Timestamp: *at(20 * time.Millisecond), Started: at(0), Completed: at(20 * time.Millisecond)})
	s.Warning(progress.Warning{
		Vertex: load.Digest, Level: 1, Short: "JSONArgsRecommended: JSON arguments recommended for CMD (line 3)",
		Detail: []string{"JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior"},
		URL:    "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/",
		File:   "Dockerfile", Source: []byte("FROM base\nRUN make\nCMD run me\n"), Ranges: []progress.Position{{Line: 3, EndLine: 3}},
	})
	load.Completed = at(30 * time.Millisecond)
	s.Vertex(load)

	cached := step("[1/3] FROM docker.io/library/base@sha256:1234")
	cached.Started, cached.Completed, cached.Cached = at(40*time.Millisecond), at(40*time.Millisecond), true
	s.Vertex(cached)

	run := step("[2/3] RUN make")
	run.Inputs = []digest.Digest{cached.Digest}
	run.Started = at(50 * time.Millisecond)
	s.Vertex(run)
	s.Log(progress.Log{Vertex: run.Digest, Stream: 1, Data: []byte("cc -o a a.c\ncc "), Timestamp: *at(173 * time.Millisecond)})
	s.Log(progress.Log{Vertex: run.Digest, Stream: 1, Data: []byte("-o b b.c\n"), Timestamp: *at(280 * time.Millisecond)})
	run.Completed = at(550 * time.Millisecond)
	s.Vertex(run)

	last := step("[3/3] RUN make install")
	last.Inputs = []digest.Digest{run.Digest}
	last.Started = at(600 * time.Millisecond)
	s.Vertex(last)
	s.Log(progress.Log{Vertex: last.Digest, Stream: 2, Data: []byte("install: no such file\n"), Timestamp: *at(700 * time.Millisecond)})
	last.Completed = at(800 * time.Millisecond)
	if fail {
		last.Error = `process "/bin/sh -c make install" did not complete successfully: exit code: 2`
	}
	s.Vertex(last)
}

func TestGolden(t *testing.T) {
	tests := map[string]struct {
		mode         string
		fail, expand bool
	}{
		"plain":          {mode: "plain"},
		"plain_failed":   {mode: "plain", fail: true},
		"plain_expanded": {mode: "plain", expand: true},
		"auto_no_tty":    {mode: "auto"},
		"quiet":          {mode: "quiet", fail: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			d, err := New(Options{
				Mode: tc.mode, Out: &out, Description: `building with "shale" in a user namespace`,
				ShortDescription: "shale:userns", ExpandWarnings: tc.expand,
			})
			if err != nil {
				t.Fatal(err)
			}
			// All events must be in one batch. Otherwise, the order of the text would
			// depend on the speed of the machine.
			feedAtOnce(d, func(s progress.Sink) { replay(s, tc.fail) })
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			golden(t, name+".txt", out.Bytes())
		})
	}
}

// feedAtOnce adds all events before the Display draws the first one.
func feedAtOnce(d *Display, events func(progress.Sink)) {
	collected := &Display{pending: &client.SolveStatus{}}
	collected.changed = sync.NewCond(&collected.mu)
	events(collected)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = collected.pending
	d.changed.Broadcast()
}

func TestRawJSON(t *testing.T) {
	var out bytes.Buffer
	d, err := New(Options{Mode: "json", Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	replay(d, true)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var all client.SolveStatus
	dec := json.NewDecoder(&out)
	for {
		var s client.SolveStatus
		err := dec.Decode(&s)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all.Vertexes = append(all.Vertexes, s.Vertexes...)
		all.Statuses = append(all.Statuses, s.Statuses...)
		all.Logs = append(all.Logs, s.Logs...)
		all.Warnings = append(all.Warnings, s.Warnings...)
	}
	got, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "rawjson.json", append(got, '\n'))
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", path, diff)
	}
}

// terminal is a pseudo terminal that collects its output.
type terminal struct {
	slave *os.File
	done  chan []byte
}

func openTerminal(t *testing.T) *terminal {
	t.Helper()
	master, path, err := console.NewPty()
	if err != nil {
		t.Fatal(err)
	}
	if err := master.Resize(console.WinSize{Width: 80, Height: 24}); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{slave: slave, done: make(chan []byte, 1)}
	go func() {
		// If the slave is closed, a read from the master returns EIO.
		data, _ := io.ReadAll(master)
		term.done <- data
	}()
	t.Cleanup(func() { _ = master.Close() })
	return term
}

// screen closes the terminal and returns all text that was written to it.
func (term *terminal) screen(t *testing.T) string {
	t.Helper()
	if err := term.slave.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case data := <-term.done:
		return string(data)
	case <-time.After(10 * time.Second):
		t.Fatal("the terminal was not released")
		return ""
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

func TestTTY(t *testing.T) {
	for _, fail := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail=%t", fail), func(t *testing.T) {
			term := openTerminal(t)
			d, err := New(Options{Mode: "tty", Out: term.slave, ShortDescription: "shale:userns"})
			if err != nil {
				t.Fatal(err)
			}
			replay(d, fail)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			raw := term.screen(t)
			if hide, show := strings.LastIndex(raw, "\x1b[?25l"), strings.LastIndex(raw, "\x1b[?25h"); show < hide {
				t.Errorf("the cursor is left hidden:\n%q", raw)
			}
			text := strings.ReplaceAll(escapes.ReplaceAllString(raw, ""), "\r\n", "\n")
			wanted := []string{"(4/4) FINISHED", "shale:userns", " => CACHED [1/3] FROM", " => [2/3] RUN make", " 1 warning found"}
			if fail {
				wanted = append(wanted, " => ERROR [3/3] RUN make install", "------\n > [3/3] RUN make install:\n0.100 install: no such file\n------\n")
			}
			for _, w := range wanted {
				if !strings.Contains(text, w) {
					t.Errorf("no %q in:\n%s", w, text)
				}
			}
			if !fail && strings.Contains(text, "------") {
				t.Errorf("a tail is printed for a build that succeeded:\n%s", text)
			}
		})
	}
}

func TestTTYCancelled(t *testing.T) {
	term := openTerminal(t)
	d, err := New(Options{Mode: "tty", Out: term.slave})
	if err != nil {
		t.Fatal(err)
	}
	running := progress.Vertex{Digest: digest.FromString("run"), Name: "[2/2] RUN sleep 100", Started: at(0)}
	d.Vertex(running)
	d.Log(progress.Log{Vertex: running.Digest, Stream: 1, Data: []byte("waiting"), Timestamp: *at(time.Second)})
	running.Completed, running.Error = at(2*time.Second), "context canceled"
	d.Vertex(running)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d.Vertex(running) // late events must not panic
	raw := term.screen(t)
	if !strings.HasSuffix(raw, "\x1b[?25h") {
		t.Errorf("the cursor is left hidden:\n%q", raw)
	}
	if text := escapes.ReplaceAllString(raw, ""); !strings.Contains(text, "CANCELED [2/2] RUN sleep 100") || strings.Contains(text, "------") {
		t.Errorf("cancelled step is shown as:\n%s", text)
	}
}

func TestTTYWithoutTerminal(t *testing.T) {
	if _, err := New(Options{Mode: "tty", Out: &bytes.Buffer{}}); err == nil {
		t.Error("a live view was drawn into a buffer")
	}
}

func TestParseMode(t *testing.T) {
	for value, want := range map[string]string{"": "auto", "auto": "auto", "json": "rawjson", "rawjson": "rawjson", "plain": "plain", "tty": "tty", "quiet": "quiet"} {
		if got, err := ParseMode(value); err != nil || got != want {
			t.Errorf("ParseMode(%q) = %q, %v, want %q", value, got, err, want)
		}
	}
	if _, err := ParseMode("fancy"); err == nil {
		t.Error("mode fancy is accepted")
	}
}

// slowWriter is a terminal that blocks until it is released.
type slowWriter struct{ release chan struct{} }

func (w slowWriter) Write(p []byte) (int, error) {
	<-w.release
	return len(p), nil
}

func TestSlowTerminalHoldsUpOutput(t *testing.T) {
	w := slowWriter{release: make(chan struct{})}
	d, err := New(Options{Mode: "plain", Out: w})
	if err != nil {
		t.Fatal(err)
	}
	v := progress.Vertex{Digest: digest.FromString("run"), Name: "RUN yes", Started: at(0)}
	d.Vertex(v)
	line := append(bytes.Repeat([]byte("y"), 1<<20), '\n')
	sent := make(chan int, 1)
	go func() {
		for range 20 {
			d.Log(progress.Log{Vertex: v.Digest, Stream: 1, Data: line, Timestamp: *at(0)})
		}
		sent <- 20
	}()
	select {
	case <-sent:
		t.Error("20 MiB of output wait in memory")
	case <-time.After(200 * time.Millisecond):
	}
	close(w.release)
	<-sent
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
