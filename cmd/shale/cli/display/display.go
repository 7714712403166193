package display

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/shale-build/shale/builder/progress"
)

// maxPendingLog is how many bytes of step output may wait for a slow terminal
// before steps are held up. It bounds memory, as a pipe does.
const maxPendingLog = 4 << 20

// Options says how to draw. The zero value of every field but Out is usable.
type Options struct {
	// Mode is auto (default), tty, plain, rawjson, json (the same) or quiet.
	Mode string
	// Out is where to draw, usually standard error. A live view needs an
	// *os.File that is a terminal.
	Out io.Writer
	// Description follows "#0 " on the first line of plain text, and stands
	// at the right of the live view's first line in its short form.
	Description, ShortDescription string
	// ExpandWarnings prints each warning in full, with its source.
	ExpandWarnings bool
}

// ParseMode returns the mode progressui knows for the value of --progress.
func ParseMode(value string) (string, error) {
	switch value {
	case "", "auto":
		return string(progressui.AutoMode), nil
	case "json", "rawjson":
		return string(progressui.RawJSONMode), nil
	case "tty", "plain", "quiet":
		return value, nil
	case "none":
		return string(progressui.QuietMode), nil
	}
	return "", fmt.Errorf("invalid progress mode %q: it is one of auto, tty, plain, json, rawjson, quiet, none", value)
}

// Display shows one build. Its methods are safe for concurrent use.
type Display struct {
	opts Options

	mu      sync.Mutex
	changed *sync.Cond
	pending *client.SolveStatus
	// pendingLog counts the bytes of output in pending.
	pendingLog int
	closed     bool
	output     output

	finished chan struct{}
	warnings []client.VertexWarning
	err      error
}

var _ progress.Sink = (*Display)(nil)

// New starts drawing. Close must be called, whatever becomes of the build.
func New(opts Options) (*Display, error) {
	mode, err := ParseMode(opts.Mode)
	if err != nil {
		return nil, err
	}
	opts.Mode, opts.Out = mode, Raw(opts.Out)
	drawn, err := progressui.NewDisplay(opts.Out, progressui.DisplayMode(mode),
		progressui.WithDesc(opts.Description, opts.ShortDescription))
	if err != nil {
		return nil, fmt.Errorf("show progress: %w", err)
	}
	d := &Display{opts: opts, pending: &client.SolveStatus{}, finished: make(chan struct{})}
	d.changed = sync.NewCond(&d.mu)
	d.output = newOutput(opts)

	statuses := make(chan *client.SolveStatus)
	go d.feed(statuses)
	go d.draw(drawn, statuses)
	return d, nil
}

// Close draws what is pending, then the tail of every failed step, then the
// warnings, and returns when all of it is written. Events that come later are
// dropped. Close may be called more than once.
func (d *Display) Close() error {
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	d.changed.Broadcast()
	d.mu.Unlock()
	<-d.finished
	if d.err != nil {
		return fmt.Errorf("show progress: %w", d.err)
	}
	if first && d.opts.Mode != string(progressui.QuietMode) && d.opts.Mode != string(progressui.RawJSONMode) {
		printWarnings(d.opts.Out, d.warnings, d.opts.ExpandWarnings)
	}
	return nil
}

// Warnings are the findings that were made. It is called after Close.
func (d *Display) Warnings() []client.VertexWarning { return d.warnings }

// draw is not bound to the build's context: a cancelled build is drawn to its
// end, so that the terminal is left in order.
func (d *Display) draw(drawn progressui.Display, statuses chan *client.SolveStatus) {
	defer close(d.finished)
	d.warnings, d.err = drawn.UpdateFrom(context.Background(), statuses)
}

// feed hands everything that came since the last time to the drawing side.
func (d *Display) feed(statuses chan<- *client.SolveStatus) {
	defer close(statuses)
	for {
		batch := d.take()
		if batch == nil {
			return
		}
		statuses <- batch
	}
}

// take waits for events; it returns nil when all are drawn and no more come.
func (d *Display) take() *client.SolveStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	for isEmpty(d.pending) && !d.closed {
		d.changed.Wait()
	}
	if isEmpty(d.pending) {
		return nil
	}
	batch := d.pending
	d.pending, d.pendingLog = &client.SolveStatus{}, 0
	d.changed.Broadcast()
	return batch
}

func isEmpty(s *client.SolveStatus) bool {
	return len(s.Vertexes)+len(s.Statuses)+len(s.Logs)+len(s.Warnings) == 0
}

// Vertex implements progress.Sink.
func (d *Display) Vertex(v progress.Vertex) {
	d.add(func(s *client.SolveStatus) {
		if rest := d.output.end(v); len(rest) > 0 {
			s.Logs = append(s.Logs, convertLog(progress.Log{Vertex: v.Digest, Data: rest, Timestamp: *v.Completed}))
		}
		v.Name, v.Error = d.output.line(v.Name), d.output.line(v.Error)
		s.Vertexes = append(s.Vertexes, convertVertex(v))
	})
}

// Status implements progress.Sink.
func (d *Display) Status(st progress.Status) {
	d.add(func(s *client.SolveStatus) {
		st.ID, st.Name = d.output.line(st.ID), d.output.line(st.Name)
		s.Statuses = append(s.Statuses, convertStatus(st))
	})
}

// Warning implements progress.Sink.
func (d *Display) Warning(w progress.Warning) {
	d.add(func(s *client.SolveStatus) {
		w.Short, w.URL = d.output.line(w.Short), d.output.line(w.URL)
		s.Warnings = append(s.Warnings, convertWarning(w))
	})
}

// Log implements progress.Sink. It blocks while too much output waits to be
// drawn.
func (d *Display) Log(l progress.Log) {
	d.mu.Lock()
	for d.pendingLog > maxPendingLog && !d.closed {
		d.changed.Wait()
	}
	d.mu.Unlock()
	d.add(func(s *client.SolveStatus) {
		if l.Data = d.output.text(l.Vertex, l.Data); len(l.Data) > 0 {
			d.pendingLog += len(l.Data)
			s.Logs = append(s.Logs, convertLog(l))
		}
	})
}

func (d *Display) add(to func(*client.SolveStatus)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	to(d.pending)
	d.changed.Broadcast()
}
