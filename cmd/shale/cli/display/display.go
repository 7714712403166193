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

// maxPendingLog is the number of bytes of step output that may wait for a slow
// terminal. If more bytes are waiting, Log blocks the step. This bounds memory, as a
// pipe does.
const maxPendingLog = 4 << 20

// Options configures a Display. The zero value of every field except Out may be used.
type Options struct {
	// Mode is one of the values that ParseMode accepts. The default is auto.
	Mode string
	// Out is the destination, usually standard error. A live view requires an *os.File
	// that is a terminal.
	Out io.Writer
	// Description follows "#0 " on the first line of plain text. ShortDescription is
	// shown at the right end of the first line of the live view.
	Description, ShortDescription string
	// ExpandWarnings prints each warning in full, with its source lines.
	ExpandWarnings bool
}

// ParseMode returns the mode of progressui for a value of --progress: auto (also ""),
// tty, plain, rawjson, json (the same as rawjson), quiet or none (the same as quiet).
// It returns an error for any other value.
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

// Display shows the progress of one build. Its methods are safe for concurrent use.
type Display struct {
	opts Options

	mu      sync.Mutex
	changed *sync.Cond
	pending *client.SolveStatus
	// pendingLog is the number of bytes of step output in pending.
	pendingLog int
	closed     bool
	output     output

	finished chan struct{}
	warnings []client.VertexWarning
	err      error
}

var _ progress.Sink = (*Display)(nil)

// New returns a Display and starts drawing. The caller must call Close, even if the
// build fails.
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

// Close draws the pending events, the end of the output of every failed step, and the
// warnings. It returns after all of this is written. Later events are dropped. Close
// may be called more than once. It returns an error if drawing failed.
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

// Warnings returns the warnings of the build. It must be called after Close.
func (d *Display) Warnings() []client.VertexWarning { return d.warnings }

// draw draws the statuses until feed closes the channel. It does not use the context of
// the build: it must also draw a cancelled build to its end, to leave the terminal in
// order.
func (d *Display) draw(drawn progressui.Display, statuses chan *client.SolveStatus) {
	defer close(d.finished)
	d.warnings, d.err = drawn.UpdateFrom(context.Background(), statuses)
}

// feed passes the events to draw, in batches. Each batch contains the events that
// arrived since the last one.
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

// take waits for events and returns them. It returns nil if the Display is closed and
// all events are drawn.
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

// Log implements progress.Sink. It blocks while too much output waits to be drawn.
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
