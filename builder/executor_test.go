package builder

import (
	"context"
	"errors"
	"testing"

	"github.com/shale-build/shale/builder/solve"
)

// Sources that are fetched later must also see the container's own git, logins and
// certificates.
func TestFetchedWithOwn(t *testing.T) {
	held, taken := 0, 0
	own := func() (func(), error) {
		held, taken = held+1, taken+1
		return func() { held-- }, nil
	}
	during := 0
	src := fetchedWithOwn(solve.Source{
		Fetch: func(context.Context, solve.Reporter) (string, error) { during += held; return "layer", nil },
		Open: func(context.Context, solve.Reporter) (solve.Snapshot, error) {
			during += held
			return solve.Snapshot{Layer: "opened"}, nil
		},
	}, own)
	layer, err := src.Fetch(t.Context(), nil)
	if layer != "layer" || err != nil {
		t.Errorf("got %q, %v", layer, err)
	}
	snap, err := src.Open(t.Context(), nil)
	if snap.Layer != "opened" || err != nil {
		t.Errorf("got %q, %v", snap.Layer, err)
	}
	if held != 0 || taken != 2 || during != 2 {
		t.Errorf("held %d, taken %d, during %d: want 0, 2, 2", held, taken, during)
	}
	if got := fetchedWithOwn(solve.Source{}, own); got.Fetch != nil || got.Open != nil {
		t.Error("there is nothing to fetch, and a function for it")
	}

	broken := errors.New("broken")
	src = fetchedWithOwn(solve.Source{Fetch: func(context.Context, solve.Reporter) (string, error) {
		t.Error("fetched without the container's own files")
		return "", nil
	}}, func() (func(), error) { return nil, broken })
	if _, err := src.Fetch(t.Context(), nil); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}
