package display

import (
	"bytes"
	"os"
	"slices"
	"time"

	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"golang.org/x/term"

	"github.com/shale-build/shale/builder/progress"
)

// maxLine is the number of bytes after which a line of a step's output is broken. The
// limit is needed because progressui keeps each line until its end, and the last 40
// lines of each step (logsBufferSize).
const maxLine = 16 << 10

// A live view shows a few lines of a step's output. If the step fails, the view prints
// all output that it received. Therefore it receives only the first maxShown bytes,
// then one line per trickle interval, and the last maxTail bytes of a step that fails.
const (
	maxShown = 2 << 20 // the size of a step's log that BuildKit keeps
	maxTail  = 64 << 10

	trickle    = 200 * time.Millisecond
	maxTrickle = 160
)

// output prepares text for drawing. Its methods must be called with the lock of the
// Display. The zero value returns all text unchanged.
type output struct {
	// live is set if the view keeps its input. terminal is set if the view is drawn on
	// a terminal.
	live, terminal bool
	// steps is nil if the output of steps is not changed.
	steps map[digest.Digest]*written
}

func newOutput(opts Options) output {
	f, ok := opts.Out.(*os.File)
	o := output{terminal: ok && term.IsTerminal(int(f.Fd()))}
	switch progressui.DisplayMode(opts.Mode) {
	case progressui.TtyMode:
		o.live = true
	case progressui.AutoMode:
		o.live = o.terminal
	case progressui.QuietMode, progressui.RawJSONMode:
		return output{}
	case progressui.DefaultMode, progressui.PlainMode:
	}
	o.steps = map[digest.Digest]*written{}
	return o
}

// line returns s in the form in which it is drawn. s must not be the output of a step.
func (o *output) line(s string) string {
	if !o.terminal {
		return s
	}
	return visible(s)
}

// written describes the output that a step has written so far.
type written struct {
	// column is the length of the unfinished line. held is the beginning of an
	// incomplete escape sequence.
	column int
	held   []byte
	// shown is the number of bytes so far. left is the number of bytes since the view
	// received the first maxShown bytes, and tail is the end of these bytes. last is
	// the time of the last trickle line.
	shown int
	left  int64
	tail  []byte
	last  time.Time
}

// text returns the form of data that must be drawn.
func (o *output) text(step digest.Digest, data []byte) []byte {
	w := o.steps[step]
	if o.steps == nil {
		return data
	}
	if w == nil {
		w = &written{}
		o.steps[step] = w
	}
	if o.terminal {
		data = w.harmless(data)
	}
	data = w.broken(data)
	if !o.live {
		return data
	}
	return w.some(data)
}

// end returns the remaining output of a step that has ended, and removes its state. It
// returns nil if the step has not ended.
func (o *output) end(v progress.Vertex) []byte {
	w := o.steps[v.Digest]
	if w == nil || v.Completed == nil {
		return nil
	}
	delete(o.steps, v.Digest)
	held := []byte(visible(string(w.held)))
	if w.left == 0 || v.Error == "" {
		return held
	}
	return slices.Concat([]byte("[...]\n"), w.tail, held)
}

// broken inserts newlines into lines that are longer than maxLine.
func (w *written) broken(data []byte) []byte {
	var out []byte
	for len(data) > 0 {
		line, ended := data, false
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			line, ended = data[:i+1], true
		}
		room := maxLine - w.column
		if len(line) <= room || ended && len(line) == room+1 {
			out, data = append(out, line...), data[len(line):]
			w.column += len(line)
			if ended {
				w.column = 0
			}
			continue
		}
		out, data = append(append(out, line[:room]...), '\n'), data[room:]
		w.column = 0
	}
	return out
}

// some returns data until maxShown bytes are shown. After that, it returns the last
// line once per trickle interval, so that the user sees that the step still runs.
func (w *written) some(data []byte) []byte {
	if w.shown += len(data); w.shown <= maxShown {
		return data
	}
	if w.left == 0 {
		w.last = time.Now()
		data = append([]byte{'\n'}, data...)
	}
	w.left += int64(len(data))
	w.tail = append(w.tail, data...)
	if len(w.tail) > 2*maxTail {
		w.tail = append(w.tail[:0], w.tail[len(w.tail)-maxTail:]...)
	}
	if time.Since(w.last) < trickle {
		return nil
	}
	w.last = time.Now()
	lines := bytes.Split(bytes.TrimRight(w.tail, "\n"), []byte{'\n'})
	line := lines[len(lines)-1]
	return append(bytes.Clone(line[:min(len(line), maxTrickle)]), '\n')
}
