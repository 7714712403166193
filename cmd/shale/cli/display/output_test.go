package display

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/progress"
)

func drawn(live, terminal bool) *output {
	return &output{live: live, terminal: terminal, steps: map[digest.Digest]*written{}}
}

func TestLongLinesAreBroken(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine+5)
	for name, data := range map[string]string{
		"endless": long, "exact": long[:maxLine] + "\n" + long[:maxLine] + "\n", "one more": long[:maxLine+1] + "\nnext\n", "short": "a\n\nb\n", "empty": "",
	} {
		for _, chunk := range []int{1, 7, maxLine - 1, maxLine, 1 << 20} {
			t.Run(fmt.Sprint(name, chunk), func(t *testing.T) {
				o := drawn(false, false)
				var out []byte
				for rest := []byte(data); len(rest) > 0; {
					n := min(chunk, len(rest))
					out = append(out, o.text("step", rest[:n])...)
					rest = rest[n:]
				}
				if strings.ReplaceAll(string(out), "\n", "") != strings.ReplaceAll(data, "\n", "") {
					t.Error("something was lost")
				}
				for line := range strings.SplitSeq(string(out), "\n") {
					if len(line) > maxLine {
						t.Errorf("a line has %d bytes", len(line))
					}
				}
				if len(data) <= maxLine && string(out) != data {
					t.Errorf("got %q", out)
				}
				if name == "exact" && string(out) != data {
					t.Error("lines of just the longest length were changed")
				}
			})
		}
	}
}

// TestOutputIsBounded checks the memory for a step that writes without end. It must not
// depend on whether the step writes newlines or more than a view can show.
func TestOutputIsBounded(t *testing.T) {
	tests := map[string]struct {
		mode, line string
		// size is the amount of output, and most is the memory that may be used, in
		// MiB.
		size, most int
	}{
		"plain, one line": {"plain", "y", 512, 128},
		"tty, one line":   {"tty", "y", 32, 16},
		"tty, lines":      {"tty", strings.Repeat("y", 63) + "\n", 32, 16},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			o := Options{Mode: tc.mode, Out: io.Discard}
			if tc.mode == "tty" {
				o.Out = openTerminal(t).slave
			}
			d, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			v := progress.Vertex{Digest: digest.FromString("run"), Name: "RUN yes", Started: at(0)}
			d.Vertex(v)
			data := bytes.Repeat([]byte(tc.line), 64<<10/len(tc.line))
			before, most := inUse(), uint64(0)
			for i := range tc.size * 16 {
				d.Log(progress.Log{Vertex: v.Digest, Stream: 1, Data: data, Timestamp: *at(0)})
				if i%50 == 0 {
					most = max(most, inUse())
				}
			}
			v.Completed = at(1)
			d.Vertex(v)
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			if most > before+uint64(tc.most)<<20 {
				t.Errorf("%d MiB of output took %d MiB", tc.size, (most-before)>>20)
			}
		})
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestTailOfFailedStep checks that omitted output is shown if the step fails.
func TestTailOfFailedStep(t *testing.T) {
	o := drawn(true, false)
	total := 0
	for i := range 1_000_000 {
		total += len(o.text("step", fmt.Appendf(nil, "line %d\n", i)))
	}
	if total > maxShown+64<<10 {
		t.Errorf("%d bytes were shown", total)
	}
	v := progress.Vertex{Digest: "step", Completed: at(0), Error: "exit code: 1"}
	if rest := string(o.end(v)); !strings.HasPrefix(rest, "[...]\n") || !strings.HasSuffix(rest, "line 999998\nline 999999\n") {
		t.Errorf("%d bytes, ending %q", len(rest), rest[max(0, len(rest)-40):])
	}
	if len(o.steps) > 0 {
		t.Error("the step was not forgotten")
	}
}

func TestEscapes(t *testing.T) {
	tests := map[string]struct{ in, want string }{
		"text":        {"a ä 漢 b\tc\r50%\b\n", "a ä 漢 b\tc\r50%\b\n"},
		"colours":     {"\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m \x1b[K\x1b[2K", "\x1b[1;31mred\x1b[0m \x1b[38:5:9mx\x1b[m \x1b[K\x1b[2K"},
		"title":       {"\x1b]0;evil\x07", "^[]0;evil^G"},
		"clipboard":   {"\x1b]52;c;ZXZpbA==\x1b\\", "^[]52;c;ZXZpbA==^[\\"},
		"cursor":      {"\x1b[2J\x1b[1;1H\x1b[3A", "^[[2J^[[1;1H^[[3A"},
		"reports":     {"\x1b[6n\x1b[c\x1bc\x1bP+q\x1b\\", "^[[6n^[[c^[c^[P+q^[\\"},
		"8 bit":       {"\x9b2J\xc2\x9b2J", "<9B>2J<U+009B>2J"},
		"others":      {"\x00\x07\x0b\x0c\x0e\x7f", "^@^G^K^L^N^?"},
		"endless":     {"\x1b[" + strings.Repeat("1;", 100) + "x", "^[[" + strings.Repeat("1;", 100) + "x"},
		"cut off":     {"x\x1b[1;3", "x^[[1;3"},
		"cut in UTF8": {"x\xe6\xbc", "x<E6><BC>"},
	}
	for name, tc := range tests {
		for _, chunk := range []int{1, 2, 1 << 10} {
			t.Run(fmt.Sprint(name, chunk), func(t *testing.T) {
				o := drawn(false, true)
				var out []byte
				for rest := []byte(tc.in); len(rest) > 0; {
					n := min(chunk, len(rest))
					out = append(out, o.text("step", rest[:n])...)
					rest = rest[n:]
				}
				out = append(out, o.end(progress.Vertex{Digest: "step", Completed: at(0)})...)
				if string(out) != tc.want {
					t.Errorf("got %q, want %q", out, tc.want)
				}
			})
		}
	}
	if got := drawn(false, true).line("RUN \x1b]0;x\x07\r\n\x1b[31m"); got != "RUN ^[]0;x^G^M\n^[[31m" {
		t.Errorf("line: %q", got)
	}
	if got := string(drawn(false, false).text("step", []byte("\x1b]0;x"))); got != "\x1b]0;x" {
		t.Errorf("not on a terminal: %q", got)
	}
}
