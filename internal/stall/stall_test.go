package stall

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

// source returns size bytes after each pause.
type source struct {
	ctx         context.Context //nolint:containedctx // of one transfer
	pause       time.Duration
	size, times int
}

func (s *source) Read(p []byte) (int, error) {
	if s.times == 0 {
		return 0, io.EOF
	}
	s.times--
	select {
	case <-time.After(s.pause):
		return min(s.size, len(p)), nil
	case <-s.ctx.Done():
		return 0, s.ctx.Err()
	}
}

func TestWatch(t *testing.T) {
	for _, c := range []struct {
		name string
		// answer is the time until the answer begins. use is the time that the consumer
		// spends on each piece.
		answer, use time.Duration
		from        source
		stalled     bool
	}{
		{name: "at once", from: source{size: 1, times: 10}},
		{name: "no answer", answer: limit + time.Second, stalled: true},
		{name: "a late answer", answer: limit - time.Second, from: source{pause: limit - time.Second, size: progress, times: 3}},
		{name: "silent", from: source{pause: limit + time.Second, size: progress, times: 1}, stalled: true},
		{name: "dripping", from: source{pause: 5 * time.Second, size: 1, times: 1000}, stalled: true},
		{name: "slow", from: source{pause: 5 * time.Second, size: progress / 20, times: 1000}},
		{name: "a short rest", from: source{pause: 5 * time.Second, size: 1, times: 20}},
		{name: "a slow reader", use: time.Hour, from: source{pause: time.Second, size: 1, times: 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, w := New(t.Context())
				defer w.Stop()
				select {
				case <-time.After(c.answer):
				case <-ctx.Done():
				}
				c.from.ctx = ctx
				r := w.Reader(&c.from)
				err := w.Cause(ctx.Err())
				for p := make([]byte, 8<<10); err == nil; {
					_, err = r.Read(p)
					time.Sleep(c.use)
				}
				if errors.Is(err, ErrStalled) != c.stalled || errors.Is(err, io.EOF) == c.stalled {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

// If the caller cancels the context, the error must not be ErrStalled.
func TestCancelled(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	ctx, w := New(parent)
	defer w.Stop()
	cancel()
	if err := w.Cause(context.Cause(ctx)); !errors.Is(err, context.Canceled) || errors.Is(err, ErrStalled) {
		t.Errorf("got %v", err)
	}
}
