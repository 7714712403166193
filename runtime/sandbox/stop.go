package sandbox

import (
	"time"

	"github.com/opencontainers/runc/libcontainer"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/procs"
)

// stop ends the command. Depending on s, it kills the command at once, or sends a signal
// first and waits for some time.
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
	// When the first process of a pid namespace ends, the kernel kills all others in it.
	r.signal(c, s, unix.SIGKILL)
}

// stopPoll is the interval of the checks for processes that still run.
const stopPoll = 20 * time.Millisecond

// terminate sends SIGTERM to all processes of the command. It returns when they have
// ended, but after grace at the latest.
//
// The first process of a pid namespace needs special treatment. If it has no handler for
// a signal, the kernel discards the signal (pid_namespaces(7)). In other places SIGTERM
// would end such a process. Here a shell would survive it, and would start its next
// command as soon as the current one has ended. So a first process without a handler is
// stopped with SIGSTOP instead.
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
