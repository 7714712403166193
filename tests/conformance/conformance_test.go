//go:build e2e

package conformance

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
)

// need is the value of a variable that the caller must set.
func need(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run make conformance", name)
	}
	return value
}

// TestCases runs every case with shale or, when CONFORMANCE_REFERENCE is set,
// with BuildKit. CONFORMANCE_UPDATE then records what BuildKit made of it.
func TestCases(t *testing.T) {
	cases, err := Load(need(t, "CONFORMANCE_CASES"))
	if err != nil {
		t.Fatal(err)
	}
	bases, err := LoadBases(need(t, "CONFORMANCE_IMAGES"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	runner := &Runner{Bases: bases, Registry: need(t, "SHALE_REGISTRY")}
	if os.Getenv("CONFORMANCE_REFERENCE") != "" {
		runner.Builder, err = NewReference(t.Context(), dir)
	} else {
		var shale *Shale
		if shale, err = NewShale(need(t, "SHALE_BIN"), dir, runner.Registry); err == nil {
			t.Cleanup(func() {
				if err := shale.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		runner.Builder = shale
	}
	if err != nil {
		t.Fatal(err)
	}
	results := &results{passed: map[string]bool{}}
	t.Cleanup(func() { results.write(t) })
	for _, c := range cases {
		if reference, ok := runner.Builder.(*Reference); ok && reference.Buildx == "" && c.Client != "" {
			t.Logf("%s needs %s, which is not on PATH", c.Name, c.Client)
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			defer func() { results.add(c.Name, !t.Failed()) }()
			check(t, runner, c)
		})
	}
}

func check(t *testing.T, runner *Runner, c *Case) {
	t.Helper()
	outcomes, err := runner.Run(t.Context(), c, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Dir, "expect.json")
	_, reference := runner.Builder.(*Reference)
	if !reference {
		forgive(outcomes, file)
	}
	got, err := Encode(outcomes)
	if err != nil {
		t.Fatal(err)
	}
	if reference && os.Getenv("CONFORMANCE_UPDATE") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if c.Differs != "" && !reference {
		file = filepath.Join(c.Dir, "expect.shale.json")
		if bytes.Equal(got, mustRead(t, filepath.Join(c.Dir, "expect.json"))) {
			t.Error("there is no difference; remove \"differs\" from case.json")
		}
	}
	want, err := ReadExpected(file)
	if err != nil {
		t.Fatalf("no expected result; record it with make conformance-reference UPDATE=1: %v\n%s", err, got)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s\n%s", c.Shows, diff.Diff("expected", want, "got", got))
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := ReadExpected(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// forgive drops the places of errors that the reference gives none for: to say
// where is no difference. (BuildKit does not for what it cannot fetch.)
func forgive(outcomes []Outcome, file string) {
	var want []Outcome
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &want) != nil {
		return // check will tell
	}
	for i := range min(len(want), len(outcomes)) {
		if want[i].Error != "" && want[i].Source == nil {
			outcomes[i].Source = nil
		}
	}
}

// results are kept for the table in docs/dockerfile-support.md.
type results struct {
	mu     sync.Mutex
	passed map[string]bool
}

func (r *results) add(name string, passed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed[name] = passed
}

func (r *results) write(t *testing.T) {
	t.Helper()
	file := os.Getenv("CONFORMANCE_RESULTS")
	if file == "" {
		return
	}
	data, err := json.Marshal(r.passed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Error(err)
	}
}
