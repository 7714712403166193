// Package stall ends a transfer if the sender sends no more data, or so little that the
// transfer would never end.
//
// A Watch counts only the time in which its readers wait for data. A slow consumer does
// not end a transfer.
package stall

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// ErrStalled is the cause of a context that a Watch has ended. It is also the error of
// its readers.
var ErrStalled = errors.New("less than 4 KiB were received in two minutes")

// At least progress bytes must arrive in each span of limit that the readers spend
// waiting.
const (
	limit    = 2 * time.Minute
	progress = 4 << 10
)

// Watch watches one transfer. It is safe for concurrent use.
type Watch struct {
	ctx    context.Context //nolint:containedctx // lives for one transfer
	cancel context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	// waited and received are counted from the last progress.
	waited   time.Duration
	received int
}

// New returns a Watch and starts the wait for the answer. The caller must send the
// request with the returned context, and must call Stop at the end.
func New(ctx context.Context) (context.Context, *Watch) {
	w := &Watch{}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	w.timer = time.AfterFunc(limit, func() { w.cancel(ErrStalled) })
	return w.ctx, w
}

// answered ends the wait for the answer. From now on only the time in which readers wait
// counts.
func (w *Watch) answered() { w.timer.Stop() }

// Stop ends the watch and cancels its context.
func (w *Watch) Stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// Cause returns ErrStalled if err was caused by the Watch, and err otherwise.
func (w *Watch) Cause(err error) error {
	if err != nil && !errors.Is(err, io.EOF) && errors.Is(context.Cause(w.ctx), ErrStalled) {
		return ErrStalled
	}
	return err
}

// Reader returns a reader of the answer r. Read calls of r must end when the context of
// the Watch ends. Only one goroutine at a time may read.
func (w *Watch) Reader(r io.Reader) io.Reader {
	w.answered()
	return &reader{r, w}
}

type reader struct {
	r io.Reader
	w *Watch
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	begun := time.Now()
	r.w.wait()
	n, err := r.r.Read(p)
	r.w.got(n, time.Since(begun))
	return n, r.w.Cause(err)
}

// wait starts the timer with the rest of the waiting time.
func (w *Watch) wait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Reset(limit - w.waited)
}

func (w *Watch) got(n int, after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.waited, w.received = w.waited+after, w.received+n
	if w.received >= progress {
		w.waited, w.received = 0, 0
	}
}
