package http

import (
	"context"
	"errors"
	"io"
	"time"
)

// ErrStalled tells that a host stopped sending.
var ErrStalled = errors.New("nothing was received for two minutes")

const stallLimit = 2 * time.Minute

// watched returns a context that ends when the host is silent for too long, and
// a reader for the answer, whose every byte is a sign of life.
func watched(ctx context.Context) (_ context.Context, watch func(io.Reader) io.Reader, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(stallLimit, func() { cancel(ErrStalled) })
	watch = func(r io.Reader) io.Reader { return &alive{r: r, timer: timer} }
	return ctx, watch, func() {
		timer.Stop()
		cancel(nil)
	}
}

type alive struct {
	r     io.Reader
	timer *time.Timer
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.timer.Reset(stallLimit)
	}
	return n, err
}
