package registry

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// retryDelay is the delay before the first repetition. Each further delay is twice as
// long as the one before.
const retryDelay = time.Second

// retry calls do until it succeeds, and repeats it at most times times. It does not
// repeat after ctx is done, or after ErrNotFound and ErrPlatform, because the result
// would be the same.
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
