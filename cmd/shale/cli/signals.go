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

// signalError is the cause of a cancellation by signal.
type signalError struct{ signal syscall.Signal }

func (e signalError) Error() string { return "stopped by " + e.signal.String() }

// Is makes what a signal ends a cancellation like any other. SIGTERM leaves time for an
// orderly end; a user who presses Ctrl-C does not want to wait.
func (e signalError) Is(target error) bool {
	return target == context.Canceled || target == exec.ErrTerminated && e.signal == syscall.SIGTERM
}

// endTime is how long after a signal the process has ended at the latest, unless
// allowTime was called. Docker kills after ten seconds.
const endTime = 9 * time.Second

// sameSignal is how long after a signal another one counts as the same: timeout(1) and
// some CI runners send a signal to the process and again to its group.
const sameSignal = 500 * time.Millisecond

// lastWords is how long the end of the process may wait for a terminal or a pipe.
const lastWords = 400 * time.Millisecond

// Signals returns a context for Main that is cancelled by the first SIGINT, SIGTERM or
// SIGHUP. The process ends at the second one, or when the command has not ended some
// time after the first: not every call of a library takes a context. Such an end leaves
// what SIGKILL leaves, which the next command removes. stop undoes all of it.
func Signals(parent context.Context, stderr io.Writer) (ctx context.Context, stop func()) {
	received := make(chan os.Signal, 4)
	signal.Notify(received, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1)
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

// watchdog ends the process after a signal when nothing else does.
type watchdog struct {
	after  func(time.Duration) <-chan time.Time
	exit   func(code int)
	stderr io.Writer

	mu    sync.Mutex
	limit func(syscall.Signal) time.Duration // nil for endTime
	undo  []func()
}

type watchdogKey struct{}

// allowTime sets how long the command that ctx belongs to may take to end after a
// signal. It is called once.
func allowTime(ctx context.Context, limit func(syscall.Signal) time.Duration) {
	if w, ok := ctx.Value(watchdogKey{}).(*watchdog); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.limit = limit
	}
}

// atEnd has undo called before the process ends because of a signal and without
// returning to the caller.
func atEnd(ctx context.Context, undo func()) {
	if w, ok := ctx.Value(watchdogKey{}).(*watchdog); ok {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.undo = append(w.undo, undo)
	}
}

// watch cancels at the first signal. It returns when stopped is closed, or ends the
// process.
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
			w.end(first, signalError{first}.Error()+"; what was going on did not end by itself")
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

// showCursor makes the cursor visible, which progress on a terminal hides (DECTCEM in
// console_codes(4)).
const showCursor = "\x1b[?25h"

// end ends the process. The kernel kills its steps with it.
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
