package recorded

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Several builds probe at once, while Go's scheduler sends signals to threads.
func TestProbe(t *testing.T) {
	if os.Geteuid() != 0 {
		err := ProbeSystem()
		if probe, ok := errors.AsType[*ProbeError](err); !ok || probe.Fix == "" || !errors.Is(err, unix.EACCES) {
			t.Errorf("outside of a namespace: %v", err)
		}
		return
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				if err := Probe(t.TempDir()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
