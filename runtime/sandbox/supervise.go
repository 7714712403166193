package sandbox

import (
	"errors"
	"sync"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
)

// supervision is the recording of owners of one container; nil for one that has
// ids for all.
type supervision struct {
	line *recorded.Line
	done chan struct{}

	mu  sync.Mutex
	err error
}

// supervise begins to record what the process does with owners. It must be
// listening when the process starts, which waits for the first answer.
func (r *Runner) supervise(c *libcontainer.Container, s *Spec, p *libcontainer.Process) (*supervision, error) {
	if s.Owners == nil {
		return nil, nil //nolint:nilnil // nothing to watch
	}
	line, err := recorded.NewLine(s.Ownership, s.Owners, s.Upper != "")
	if err != nil {
		return nil, err
	}
	p.ExtraFiles = append(p.ExtraFiles, line.Inner)
	w := &supervision{line: line, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		if err := r.serve(s, line); err != nil {
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			// Unanswered, calls would fail in ways that no program expects.
			r.signal(c, s, unix.SIGKILL)
		}
	}()
	return w, nil
}

func (r *Runner) serve(s *Spec, line *recorded.Line) error {
	fd, err := line.Listener()
	if errors.Is(err, recorded.ErrNoListener) {
		return nil // libcontainer says why
	}
	if err != nil {
		return err
	}
	stats, err := recorded.Serve(fd, recorded.Start{
		Tier: s.Ownership, UID: s.UID, GID: s.GID, Groups: s.AdditionalGIDs, Owners: s.Owners, Upper: s.Upper, Logger: r.log,
	})
	r.log.Debug("recorded ownership", "id", s.ID, "calls", stats.Total(), "by number", stats)
	return err
}

// started is called when the process has its end of the line, or never will.
func (w *supervision) started() {
	if w != nil {
		_ = w.line.Inner.Close() // the process has a copy
	}
}

// failure tells what went wrong so far.
func (w *supervision) failure() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// end waits until nobody asks any more; the container's processes have ended.
func (w *supervision) end() error {
	if w == nil {
		return nil
	}
	w.line.HangUp()
	<-w.done
	return errors.Join(w.failure(), w.line.Close())
}
