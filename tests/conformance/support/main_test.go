package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/shale-build/shale/tests/conformance"
)

// The committed document says that every case holds: whatever else it says
// must be what the notes and the cases of this tree say. That a case holds is
// what a whole run of the suite checks.
func TestDocument(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	suite := filepath.Join(root, "tests", "conformance")
	cases, err := conformance.Load(filepath.Join(suite, "cases"))
	if err != nil {
		t.Fatal(err)
	}
	scenarios, err := conformance.LoadScenarios(filepath.Join(suite, "scenarios.json"), cases)
	if err != nil {
		t.Fatal(err)
	}
	passed := map[string]bool{}
	for _, c := range cases {
		passed[c.Name] = true
	}
	document, err := os.ReadFile(filepath.Join(root, "docs", "dockerfile-support.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := render(cases, scenarios, passed); string(want) != string(document) {
		t.Error("docs/dockerfile-support.md is not what notes.txt and the cases say: run make conformance and commit it")
	}
}
