package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/shale-build/shale/builder/exec"
)

// signalError is the cause of a context that a signal has cancelled.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "stopped by " + e.signal.String() }

// Is reports that every signalError is a context.Canceled. SIGTERM is also an
// exec.ErrTerminated, which gives a build time for an orderly end. SIGINT is not,
// because a user at the terminal (Ctrl-C) does not want to wait.
func (e signalError) Is(target error) bool {
	return target == context.Canceled || target == exec.ErrTerminated && e.signal == syscall.SIGTERM
}

// endTime is the longest time from a signal to the end of the process, unless allowTime
// sets another limit. Docker kills a container after ten seconds.
const endTime = 9 * time.Second

// sameSignal is the time in which a second signal of the same kind is ignored.
// timeout(1) and some CI runners send a signal to the process and again to its process
// group.
const sameSignal = 500 * time.Millisecond

// lastWords is the time that a terminal or a pipe may delay the end of the process.
const lastWords = 400 * time.Millisecond

// Signals returns a context for Main, which the first SIGINT, SIGTERM or SIGHUP
// cancels. A second signal ends the process. The process also ends if the command does
// not return in time after the first signal, because some library calls accept no
// context. Then it leaves the same files as after SIGKILL, and the next command removes
// them. stop cancels the context and restores the normal effect of the signals.
func Signals(parent context.Context, stderr io.Writer) (ctx context.Context, stop func()) {
	received := make(chan os.Signal, 4)
	signal.Notify(received, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1) ignores it
		signal.Notify(received, syscall.SIGHUP)
	}
	w := &watchdog{after: time.After, exit: os.Exit, stderr: stderr}
	ctx, cancel := context.WithCancelCause(context.WithValue(parent, watchdogKey{}, w))
	stopped := make(chan struct{})
	go w.watch(received, stopped, cancel)
	return ctx, func() {
		signal.Stop(received)
		close(stopped)
		cancel(nil)
	}
}

// watchdog ends the process after a signal if the command does not return in time.
type watchdog struct {
	after  func(time.Duration) <-chan time.Time
	exit   func(code int)
	stderr io.Writer

	mu    sync.Mutex
	limit func(syscall.Signal) time.Duration // if nil, endTime applies
	undo  []func()
}

type watchdogKey struct{}

// allowTime sets the time that the command of ctx has to end after a signal. A later
// call replaces the limit.
func allowTime(ctx context.Context, limit func(syscall.Signal) time.Duration) {
	if w, ok := ctx.Value(watchdogKey{}).(*watchdog); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.limit = limit
	}
}

// atEnd registers a function that must run if a signal ends the process before the
// command returns.
func atEnd(ctx context.Context, undo func()) {
	if w, ok := ctx.Value(watchdogKey{}).(*watchdog); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.undo = append(w.undo, undo)
	}
}

// watch cancels the context at the first signal. It returns if stopped is closed.
// Otherwise, it ends the process after a second signal or at the time limit.
func (w *watchdog) watch(received <-chan os.Signal, stopped <-chan struct{}, cancel context.CancelCauseFunc) {
	var first syscall.Signal
	select {
	case s := <-received:
		first, _ = s.(syscall.Signal)
	case <-stopped:
		return
	}
	cancel(signalError{first})
	same, limit := w.after(sameSignal), w.after(w.timeFor(first))
	for {
		select {
		case <-stopped:
			return
		case <-same:
			same = nil
		case s := <-received:
			second, _ := s.(syscall.Signal)
			if same != nil && second == first {
				continue
			}
			w.end(second, signalError{second}.Error()+" at once")
			return
		case <-limit:
			w.end(first, signalError{first}.Error()+"; running work did not end by itself")
			return
		}
	}
}

func (w *watchdog) timeFor(s syscall.Signal) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.limit == nil {
		return endTime
	}
	return w.limit(s)
}

// showCursor makes the cursor visible (DECTCEM in console_codes(4)). Progress on a
// terminal hides it.
const showCursor = "\x1b[?25h"

// end prints the message and ends the process. The kernel kills its steps with it.
func (w *watchdog) end(s syscall.Signal, message string) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, undo := range w.undo {
			undo()
		}
		if f, ok := w.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			message = showCursor + message
		}
		_, _ = fmt.Fprintf(w.stderr, "shale: %s\n", message)
	}()
	select {
	case <-said:
	case <-w.after(lastWords):
	}
	w.exit(exitSignal + int(s))
}
