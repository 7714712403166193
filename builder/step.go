package builder

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/progress"
)

// step shows an export in the progress display.
type step struct {
	sink   progress.Sink
	vertex progress.Vertex
}

func newStep(sink progress.Sink, name string) *step {
	now := time.Now()
	s := &step{sink: sink, vertex: progress.Vertex{
		Digest: digest.FromString(name + now.String()), Name: name, Started: &now,
	}}
	sink.Vertex(s.vertex)
	return s
}

// note shows an action that is already complete.
func (s *step) note(what string) { s.begin(what)(nil) }

// begin shows an action that continues until done is called. If done gets an error, the
// action stays incomplete in the display.
func (s *step) begin(what string) (done func(error)) {
	start := time.Now()
	st := progress.Status{ID: what, Vertex: s.vertex.Digest, Timestamp: start, Started: &start}
	s.sink.Status(st)
	return func(err error) {
		if err != nil {
			return
		}
		end := time.Now()
		st.Timestamp, st.Completed = end, &end
		s.sink.Status(st)
	}
}

func (s *step) done(err error) {
	now := time.Now()
	s.vertex.Completed = &now
	if err != nil {
		s.vertex.Error = err.Error()
	}
	s.sink.Vertex(s.vertex)
}

// Update implements registry.Progress.
func (s *step) Update(id string, current, total int64, done bool) {
	now := time.Now()
	st := progress.Status{
		ID: "pushing " + id, Vertex: s.vertex.Digest, Current: current, Total: total, Timestamp: now, Started: s.vertex.Started,
	}
	if done {
		st.Completed = &now
	}
	s.sink.Status(st)
}
