package builder

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shale-build/shale/builder/exec"
)

func TestLasting(t *testing.T) {
	terminated, interrupted := fmt.Errorf("by hand: %w", exec.ErrTerminated), errors.New("interrupted")
	for name, tt := range map[string]struct {
		cause error
		grace time.Duration
		lasts bool
	}{
		"terminated": {terminated, time.Hour, true}, "terminated, no grace": {terminated, 0, false},
		"a little grace": {terminated, time.Millisecond, false}, "interrupted": {interrupted, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			long, release := lasting(ctx, tt.grace)
			if long.Err() != nil {
				t.Fatal(context.Cause(long))
			}
			cancel(tt.cause)
			if tt.lasts {
				select {
				case <-long.Done():
					t.Error("it ended with the other")
				case <-time.After(50 * time.Millisecond):
				}
				release()
				<-long.Done()
				return
			}
			<-long.Done()
			if cause := context.Cause(long); !errors.Is(cause, tt.cause) {
				t.Errorf("cause %v", cause)
			}
			release()
		})
	}
}

func TestExportTime(t *testing.T) {
	for name, tt := range map[string]struct {
		to   []string
		want time.Duration
	}{
		"none": {nil, 0}, "inline": {[]string{"inline"}, 0}, "registry": {[]string{"registry"}, time.Minute}, "both": {[]string{"inline", "local"}, time.Minute},
	} {
		opts := Options{CacheGrace: time.Minute}
		for _, kind := range tt.to {
			opts.CacheTo = append(opts.CacheTo, CacheExport{Type: kind})
		}
		if got := opts.ExportTime(); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
