package storage

import (
	"context"
	"path/filepath"
	"testing"

	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"
)

// TestStagingTakenAway is a staging directory that another process removed
// before anything was done in it: the caller may ask for another one.
func TestStagingTakenAway(t *testing.T) {
	filled := false
	d := &differ{ctx: t.Context(), fill: func(context.Context, Staging) (Diff, error) {
		filled = true
		return Diff{}, nil
	}}
	_, err := d.ApplyDiff(filepath.Join(t.TempDir(), "gone", "diff"), &archive.TarOptions{}, &graphdriver.DifferOptions{})
	if err == nil || d.called || filled {
		t.Errorf("error %v, called %v, filled %v", err, d.called, filled)
	}
}
