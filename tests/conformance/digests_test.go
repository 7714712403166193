//go:build e2e

package conformance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
)

// TestDigests builds every case twice: with the ids of this user, and with a single id
// and recorded owners. Both must give the same images.
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
	// SHALE_LAYERS must affect only the second builder.
	twin.First.env = append(twin.First.env, "SHALE_LAYERS=auto")
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

// TestSums builds cases and compares the results with those of another machine, which are
// in the file CONFORMANCE_WANT. If CONFORMANCE_SUMS is set, it writes the results to that
// file.
func TestSums(t *testing.T) {
	write, read := os.Getenv("CONFORMANCE_SUMS"), os.Getenv("CONFORMANCE_WANT")
	if write == "" {
		need(t, "CONFORMANCE_WANT")
	}
	cases, err := Load(need(t, "CONFORMANCE_CASES"))
	if err != nil {
		t.Fatal(err)
	}
	bases, err := LoadBases(need(t, "CONFORMANCE_IMAGES"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	if read != "" {
		data, err := os.ReadFile(read)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
	}
	runner := &Runner{Bases: bases, Registry: need(t, "SHALE_REGISTRY")}
	shale, err := NewShale(need(t, "SHALE_BIN"), t.TempDir(), runner.Registry, environment(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shale.Close(); err != nil {
			t.Error(err)
		}
	})
	got := map[string]string{}
	for _, c := range cases {
		// Cases run one at a time, because the servers of all cases have the same
		// address.
		t.Run(c.Name, func(t *testing.T) {
			text, err := Sum(t.Context(), runner, shale, c, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if read != "" && text != want[c.Name] {
				t.Errorf("%s", diff.Diff("there", []byte(want[c.Name]), "here", []byte(text)))
			}
			got[c.Name] = text
		})
	}
	if write == "" {
		return
	}
	data, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(write, data, 0o644); err != nil {
		t.Fatal(err)
	}
}
