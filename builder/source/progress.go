package source

import (
	"sync"
	"time"

	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/storage/registry"
)

// blobProgress reports the blobs of a pull as activities of the step.
type blobProgress struct {
	report solve.Reporter

	mu      sync.Mutex
	started map[string]time.Time
}

var _ registry.Progress = (*blobProgress)(nil)

func newBlobProgress(report solve.Reporter) *blobProgress {
	return &blobProgress{report: report, started: map[string]time.Time{}}
}

// Update implements registry.Progress.
func (p *blobProgress) Update(id string, current, total int64, done bool) {
	p.mu.Lock()
	start, ok := p.started[id]
	if !ok {
		start = time.Now()
		p.started[id] = start
	}
	p.mu.Unlock()
	st := progress.Status{ID: id, Current: current, Total: total, Started: &start}
	if done {
		now := time.Now()
		st.Completed = &now
	}
	p.report.Status(st)
}
