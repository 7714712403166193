package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// retryDelay is how long the first repetition waits; each further one waits
// twice as long as the one before.
const retryDelay = time.Second

// retry calls do until it succeeds, at most 1 + times times. What will not be
// there the next time either is not asked for again.
func retry(ctx context.Context, times int, logger *slog.Logger, do func() error) error {
	delay := retryDelay
	for {
		err := do()
		if err == nil || times <= 0 || ctx.Err() != nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrPlatform) {
			return err
		}
		logger.Warn("trying again", "in", delay, "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(delay):
		}
		times, delay = times-1, 2*delay
	}
}
