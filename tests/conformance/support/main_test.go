package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shale-build/shale/tests/conformance"
)

// TestDocument checks that the committed document agrees with the notes and the cases of
// this tree. It assumes that every case passes, as the committed document states. Only a
// full run of the suite checks that.
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

// TestEnvironments checks that the tables of docs/environments.md agree with
// environments.json, and that environments.json names only existing cases.
func TestEnvironments(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	cases, err := conformance.Load(filepath.Join(root, "tests", "conformance", "cases"))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, c := range cases {
		names[c.Name] = true
	}
	differences, err := conformance.LoadDifferences()
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile(filepath.Join(root, "docs", "environments.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		for _, name := range d.Cases {
			if !names[name] {
				t.Errorf("environments.json names %s, which is no case", name)
			}
		}
		for _, environment := range d.Environments {
			listed := false
			for _, match := range table.FindAllSubmatch(document, -1) {
				listed = listed || slices.Contains(strings.Fields(string(match[1])), environment)
			}
			if !listed {
				t.Errorf("docs/environments.md has no table of the environment %s", environment)
			}
		}
	}
	if string(renderTables(document, differences)) != string(document) {
		t.Error("docs/environments.md is not what environments.json says: run go run ./tests/conformance/support and commit it")
	}
}
