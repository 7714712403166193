package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/shale-build/shale/builder/exec"
)

func TestSignalError(t *testing.T) {
	for s, orderly := range map[syscall.Signal]bool{syscall.SIGTERM: true, syscall.SIGINT: false, syscall.SIGHUP: false} {
		err := signalError{s}
		if !errors.Is(err, context.Canceled) || errors.Is(err, exec.ErrTerminated) != orderly {
			t.Errorf("%v: cancelled %v, terminated %v", err, errors.Is(err, context.Canceled), errors.Is(err, exec.ErrTerminated))
		}
	}
}

// watched is a watchdog with a clock that the test controls.
type watched struct {
	*watchdog
	ctx      context.Context //nolint:containedctx // lives for one test
	received chan os.Signal
	stopped  chan struct{}
	timers   map[time.Duration]chan time.Time
	asked    chan time.Duration
	exited   chan int
	returned chan struct{}
}

func watch(t *testing.T, stderr io.Writer) *watched {
	t.Helper()
	w := &watched{
		received: make(chan os.Signal), stopped: make(chan struct{}), asked: make(chan time.Duration, 10),
		exited: make(chan int, 1), returned: make(chan struct{}), timers: map[time.Duration]chan time.Time{},
	}
	for _, d := range []time.Duration{endTime, sameSignal, lastWords, time.Minute} {
		w.timers[d] = make(chan time.Time)
	}
	w.watchdog = &watchdog{stderr: stderr, exit: func(code int) { w.exited <- code }, after: func(d time.Duration) <-chan time.Time {
		w.asked <- d
		return w.timers[d]
	}}
	var cancel context.CancelCauseFunc
	w.ctx, cancel = context.WithCancelCause(context.WithValue(t.Context(), watchdogKey{}, w.watchdog))
	go func() {
		defer close(w.returned)
		w.watch(w.received, w.stopped, cancel)
	}()
	return w
}

func (w *watched) first(t *testing.T, s syscall.Signal) {
	t.Helper()
	w.received <- s
	<-w.ctx.Done()
	if cause := context.Cause(w.ctx); !errors.Is(cause, signalError{s}) {
		t.Errorf("cause %v", cause)
	}
}

func TestWatchdog(t *testing.T) {
	const term, interrupt = syscall.SIGTERM, syscall.SIGINT
	for name, tt := range map[string]struct {
		run  func(t *testing.T, w *watched)
		code int // -1 if the process must continue
		want string
	}{
		"no signal":         {func(_ *testing.T, w *watched) { close(w.stopped) }, -1, ""},
		"the command ended": {func(t *testing.T, w *watched) { w.first(t, term); close(w.stopped) }, -1, ""},
		"the command hung":  {func(t *testing.T, w *watched) { w.first(t, term); w.timers[endTime] <- time.Now() }, 143, "shale: stopped by terminated; running work did not end by itself\n"},
		"another signal":    {func(t *testing.T, w *watched) { w.first(t, term); w.received <- interrupt }, 130, "shale: stopped by interrupt at once\n"},
		"the same twice":    {func(t *testing.T, w *watched) { w.first(t, term); w.received <- term; close(w.stopped) }, -1, ""},
		"the same, later": {func(t *testing.T, w *watched) {
			w.first(t, term)
			w.timers[sameSignal] <- time.Now()
			w.received <- term
		}, 143, "shale: stopped by terminated at once\n"},
		"more time": {func(t *testing.T, w *watched) {
			allow(w, time.Minute)
			w.first(t, term)
			w.timers[time.Minute] <- time.Now()
		}, 143, "shale: stopped by terminated; running work did not end by itself\n"},
		"more time, ctrl-c": {func(t *testing.T, w *watched) {
			allow(w, time.Minute)
			w.first(t, interrupt)
			w.timers[endTime] <- time.Now()
		}, 130, "shale: stopped by interrupt; running work did not end by itself\n"},
		"something to undo": {func(t *testing.T, w *watched) {
			atEnd(w.ctx, func() { _, _ = io.WriteString(w.stderr, "undone\n") })
			w.first(t, interrupt)
			w.received <- term
		}, 143, "undone\nshale: stopped by terminated at once\n"},
		"undone by the call": {func(t *testing.T, w *watched) {
			atEnd(w.ctx, func() { t.Error("undone twice") })
			w.first(t, interrupt)
			close(w.stopped)
		}, -1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			w := watch(t, &stderr)
			tt.run(t, w)
			<-w.returned
			code := -1
			select {
			case code = <-w.exited:
			default:
			}
			if code != tt.code || stderr.String() != tt.want {
				t.Errorf("code %d, printed %q", code, stderr.String())
			}
		})
	}
}

func allow(w *watched, d time.Duration) {
	allowTime(w.ctx, func(s syscall.Signal) time.Duration {
		if s == syscall.SIGTERM {
			return d
		}
		return endTime
	})
}

// TestWatchdogBlocked checks that neither a full pipe nor a clean-up function can delay
// the end of the process.
func TestWatchdogBlocked(t *testing.T) {
	r, stderr := io.Pipe()
	defer r.Close()
	w := watch(t, stderr)
	w.first(t, syscall.SIGTERM)
	w.received <- syscall.SIGINT
	w.timers[lastWords] <- time.Now()
	if code := <-w.exited; code != 130 {
		t.Errorf("code %d", code)
	}
}

// TestNoWatchdog checks that both functions accept a context without a watchdog, as
// tests and other callers use it.
func TestNoWatchdog(t *testing.T) {
	allowTime(t.Context(), nil)
	atEnd(t.Context(), nil)
}
