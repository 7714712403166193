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

// maxLine is where a line of a step's output is broken: what draws keeps a line
// until its end, and the last 40 of them (progressui, logsBufferSize).
const maxLine = 16 << 10

// A live view shows a few lines of a step's output and, when the step fails, all
// that it was given. It gets the first maxShown bytes, after that now and then a
// line, and the last maxTail bytes of a step that fails.
const (
	maxShown = 2 << 20 // as much as BuildKit keeps of the log of a step
	maxTail  = 64 << 10

	trickle    = 200 * time.Millisecond
	maxTrickle = 160
)

// output prepares what is drawn. Its methods are called under the lock of the
// Display. The zero value leaves everything as it is.
type output struct {
	// live is set for a view that keeps what it is given, terminal for what is
	// drawn on one.
	live, terminal bool
	// steps is nil where output is not drawn.
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

// line returns a text that is not a step's output as it is drawn.
func (o *output) line(s string) string {
	if !o.terminal {
		return s
	}
	return visible(s)
}

// written is what a step has written so far.
type written struct {
	// column is the length of the unfinished line, held the beginning of an escape
	// sequence.
	column int
	held   []byte
	// shown counts bytes; tail is the end of what was left out since then.
	shown int
	left  int64
	tail  []byte
	last  time.Time
}

// text returns what is to be drawn of data.
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

// end returns what is still to be drawn of a step that has ended, and forgets it.
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

// broken ends lines that are too long.
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

// some returns data as long as not much was shown, and after that its last line now
// and then, so that the view keeps moving.
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
