//go:build e2e

package conformance

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDigests builds every case twice: with the ids of this user, and with one id,
// whose owners are recorded. The images are the same.
func TestDigests(t *testing.T) {
	cases, err := Load(need(t, "CONFORMANCE_CASES"))
	if err != nil {
		t.Fatal(err)
	}
	bases, err := LoadBases(need(t, "CONFORMANCE_IMAGES"))
	if err != nil {
		t.Fatal(err)
	}
	known, err := LoadDifferences()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	twin := &Twin{Runner: &Runner{Bases: bases, Registry: need(t, "SHALE_REGISTRY")}}
	for name, builder := range map[string]**Shale{"all": &twin.First, "one": &twin.Second} {
		home := filepath.Join(dir, name)
		if err := os.Mkdir(home, 0o755); err != nil {
			t.Fatal(err)
		}
		shale, err := NewShale(need(t, "SHALE_BIN"), home, twin.Runner.Registry, Environment{})
		if err != nil {
			t.Fatal(err)
		}
		*builder = shale
		t.Cleanup(func() {
			if err := shale.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	twin.Second.env = append(twin.Second.env, "SHALE_ISOLATION=recorded")
	every := every(t)
	for i, c := range cases {
		if i%every != 0 {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			differs, err := twin.Compare(t.Context(), c, i, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if err := Expected(known, "digests", c.Name).Judge(differs); err != nil {
				t.Error(err)
			}
		})
	}
}
