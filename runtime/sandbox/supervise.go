package sandbox

import (
	"errors"
	"sync"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
)

// supervision records the owners of files in one container. It is nil if the container
// needs no recorded ownership.
type supervision struct {
	line *recorded.Line
	done chan struct{}

	mu  sync.Mutex
	err error
}

// supervise starts to answer the system calls of p that set or show owners. It must be
// called before p starts, because p waits for the first answer.
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
			// Without an answer, system calls would fail in ways that programs do not
			// expect.
			r.signal(c, s, unix.SIGKILL)
		}
	}()
	return w, nil
}

func (r *Runner) serve(s *Spec, line *recorded.Line) error {
	fd, err := line.Listener()
	if errors.Is(err, recorded.ErrNoListener) {
		return nil // libcontainer reports the reason
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

// started must be called after the attempt to start the process, also if it failed.
func (w *supervision) started() {
	if w != nil {
		_ = w.line.Inner.Close() // the process has a copy
	}
}

// failure returns the first error so far.
func (w *supervision) failure() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// end waits until the recording has ended. The container's processes must have ended.
func (w *supervision) end() error {
	if w == nil {
		return nil
	}
	w.line.HangUp()
	<-w.done
	return errors.Join(w.failure(), w.line.Close())
}
