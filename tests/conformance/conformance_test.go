//go:build e2e

package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/diff"
)

// every returns n if only each nth case must run. It returns 1 for all cases.
func every(t *testing.T) int {
	t.Helper()
	value := os.Getenv("CONFORMANCE_EVERY")
	if value == "" {
		return 1
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 {
		t.Fatalf("CONFORMANCE_EVERY=%s: want a number", value)
	}
	return n
}

// need returns the value of a variable that the caller must set.
func need(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set; run make conformance", name)
	}
	return value
}

// TestCases runs every case with shale. If CONFORMANCE_REFERENCE is set, it uses BuildKit
// instead, and CONFORMANCE_UPDATE then records BuildKit's results.
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
		if shale, err = NewShale(need(t, "SHALE_BIN"), dir, runner.Registry, environment(t)); err == nil {
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
	known, err := LoadDifferences()
	if err != nil {
		t.Fatal(err)
	}
	every := every(t)
	results := &results{passed: map[string]bool{}}
	t.Cleanup(func() { results.write(t) })
	for i, c := range cases {
		if i%every != 0 {
			continue
		}
		if reference, ok := runner.Builder.(*Reference); ok && reference.Buildx == "" && c.Client != "" {
			t.Logf("%s needs %s, which is not on PATH", c.Name, c.Client)
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			defer func() { results.add(c.Name, !t.Failed()) }()
			if err := Expected(known, os.Getenv("CONFORMANCE_ENVIRONMENT"), c.Name).Judge(compare(t, runner, c)); err != nil {
				t.Error(err)
			}
		})
	}
}

// environment returns the kind of container that CONFORMANCE_ENVIRONMENT names, as
// tests/run does. The suffix -inside puts the store in the container's root file system.
// If CONFORMANCE_CONTAINER is not set, builds do not run in a container.
func environment(t *testing.T) Environment {
	t.Helper()
	if os.Getenv("CONFORMANCE_CONTAINER") == "" {
		return Environment{}
	}
	name, inside := strings.CutSuffix(need(t, "CONFORMANCE_ENVIRONMENT"), "-inside")
	return Environment{
		Name: name, Inside: inside, Program: need(t, "CONFORMANCE_CONTAINER"),
		Rootfs: need(t, "CONFORMANCE_ROOTFS"), Shared: os.TempDir(),
	}
}

// compare runs a case and returns the difference from the expected result, or "".
func compare(t *testing.T, runner *Runner, c *Case) string {
	t.Helper()
	outcomes, err := runner.Run(t.Context(), c, t.TempDir())
	if err != nil {
		return err.Error()
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
		return ""
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
	if bytes.Equal(got, want) {
		return ""
	}
	return fmt.Sprintf("%s\n%s", c.Shows, diff.Diff("expected", want, "got", got))
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := ReadExpected(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// forgive drops the source lines of errors for which the reference has none. An
// additional source position is not a difference. BuildKit reports none if it cannot
// fetch a source.
func forgive(outcomes []Outcome, file string) {
	var want []Outcome
	data, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(data, &want) != nil {
		return // compare reports the error
	}
	for i := range min(len(want), len(outcomes)) {
		if want[i].Error != "" && want[i].Source == nil {
			outcomes[i].Source = nil
		}
	}
}

// results are kept for the table of docs/dockerfile-support.md.
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
