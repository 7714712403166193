package solve

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
)

// display reports one vertex to a sink. A vertex is started and completed at most once.
// After that, only an error is reported, if the result cannot be kept.
type display struct {
	sink progress.Sink

	mu     sync.Mutex
	vertex progress.Vertex
}

var _ Reporter = (*display)(nil)

func newDisplay(sink progress.Sink, v *llb.Vertex) *display {
	inputs := make([]digest.Digest, 0, len(v.Inputs))
	for _, in := range v.Inputs {
		inputs = append(inputs, in.Vertex.Digest)
	}
	return &display{sink: sink, vertex: progress.Vertex{Digest: v.Digest, Inputs: inputs, Name: v.Name}}
}

func (d *display) start() {
	d.update(func(v *progress.Vertex) bool {
		if v.Started != nil {
			return false
		}
		v.Started = now()
		return true
	})
}

// decide records whether the vertex has to run and why. Only the first decision counts.
// It is reported with the next change of the vertex.
func (d *display) decide(decision, reason string) {
	d.update(func(v *progress.Vertex) bool {
		if v.Decision == "" {
			v.Decision, v.Reason = decision, reason
		}
		return false
	})
}

// complete ends the vertex. If the vertex was not started, it starts at the same time.
func (d *display) complete(cached bool) {
	d.update(func(v *progress.Vertex) bool {
		if v.Completed != nil {
			return false
		}
		v.Completed = now()
		if v.Started == nil {
			v.Started = v.Completed
		}
		v.Cached = cached
		return true
	})
}

func (d *display) completed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.vertex.Completed != nil
}

// succeeded reports whether the vertex is complete and has a result.
func (d *display) succeeded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.vertex.Completed != nil && d.vertex.Error == ""
}

func (d *display) fail(err error) {
	d.update(func(v *progress.Vertex) bool {
		if v.Error != "" {
			return false
		}
		v.Completed = now()
		if v.Started == nil {
			v.Started = v.Completed
		}
		v.Error = failure(err)
		return true
	})
}

// failure returns the error text of a failed vertex. Buildx expects exactly "context
// canceled" for a step that was stopped because another step failed.
func failure(err error) string {
	if errors.Is(err, context.Canceled) {
		return context.Canceled.Error()
	}
	return err.Error()
}

func (d *display) update(change func(*progress.Vertex) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if change(&d.vertex) {
		d.sink.Vertex(d.vertex)
	}
}

// Status reports an activity of the vertex.
func (d *display) Status(st progress.Status) {
	st.Vertex = d.vertex.Digest
	st.Timestamp = time.Now()
	d.sink.Status(st)
}

// Stdout returns a writer for the standard output of the vertex.
func (d *display) Stdout() io.Writer { return stream{d: d, number: 1} }

// Stderr returns a writer for the error output of the vertex.
func (d *display) Stderr() io.Writer { return stream{d: d, number: 2} }

type stream struct {
	d      *display
	number int
}

func (s stream) Write(p []byte) (int, error) {
	s.d.sink.Log(progress.Log{
		Vertex: s.d.vertex.Digest, Stream: s.number, Data: append([]byte(nil), p...), Timestamp: time.Now(),
	})
	return len(p), nil
}

func now() *time.Time {
	t := time.Now()
	return &t
}
