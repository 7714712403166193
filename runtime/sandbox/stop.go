package sandbox

import (
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/procs"
)

// stop ends the command: at once, or after asking it and giving it some time.
func (r *Runner) stop(c *libcontainer.Container, s *Spec, p *libcontainer.Process, cause error, ended <-chan struct{}) {
	switch {
	case s.StopSignal != 0:
		r.signal(c, s, s.StopSignal)
		select {
		case <-ended:
			return
		case <-time.After(s.StopTimeout):
		}
	case s.Grace != nil:
		if grace := s.Grace(cause); grace > 0 {
			r.terminate(c, s, p, grace, ended)
		}
	}
	// The first process of a pid namespace takes all others along.
	r.signal(c, s, unix.SIGKILL)
}

// stopPoll is how often it is looked whether processes have ended that were asked to.
const stopPoll = 20 * time.Millisecond

// terminate sends SIGTERM to all processes of the command and returns when they have
// ended, at the latest after grace.
//
// The kernel discards a signal for the first process of a pid namespace that has no
// handler for it (pid_namespaces(7)). Elsewhere the signal would end the process; a
// shell here would go on with its next command as soon as the present one has ended.
// It is stopped instead.
func (r *Runner) terminate(c *libcontainer.Container, s *Spec, p *libcontainer.Process, grace time.Duration, ended <-chan struct{}) {
	first, err := p.Pid()
	if err != nil {
		return
	}
	stopped := procs.HasDefault(first, unix.SIGTERM)
	if stopped {
		r.signal(c, s, unix.SIGSTOP)
	} else {
		r.signal(c, s, unix.SIGTERM)
	}
	procs.SignalAll(first, unix.SIGTERM)
	timeout := time.After(grace)
	for !stopped || procs.Running(first) > 0 {
		select {
		case <-ended:
			return
		case <-timeout:
			return
		case <-time.After(stopPoll):
		}
	}
}
