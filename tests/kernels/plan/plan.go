// Package plan is what the harness of the kernels' tests and the program in the
// virtual machine say to each other.
package plan

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// Places in the virtual machine, known to both sides.
const (
	// Stage is where the programs and cases are mounted, read-only.
	Stage = "/stage"
	// File is the plan, below Stage.
	File = "plan.json"
	// Port is the virtio serial port that takes results, one line of JSON each.
	Port = "shale.results"
	// Registry is the address of the base images.
	Registry = "127.77.0.1:5077"
	// Hello is what the server outside the machine answers.
	Hello = "shale-outside"
)

// Plan says what is run in one machine.
type Plan struct {
	// Environments are names of guest/environments.go, each with its cases.
	Environments []Environment
	// Outside is the address, as the machine sees it, of a web server on the host.
	Outside string
	// Run is a regular expression for "ENVIRONMENT/CASE"; all if empty.
	Run string
}

// Environment is what is run in one environment.
type Environment struct {
	Name string
	Selection
}

// Selection names the cases of each suite.
type Selection struct {
	// Checks are scripts of guest/checks, Stores the file systems of guest/stores.go.
	Checks, Stores []string
	// Conformance are cases of tests/conformance.
	Conformance []string
	// Digests are cases whose images are compared with the host's.
	Digests []string
	// Scenarios are scripts of tests/scripts, Containers those of
	// tests/environments/scripts, which start containers as root.
	Scenarios, Containers []string
}

//go:embed selection.json
var selection []byte

// Selections are for a user's environments, for root, for containers that allow
// namespaces and for those that do not, and for make ci.
type Selections struct{ Whole, Root, Container, Docker, Short Selection }

// Load returns the selections.
func Load() (Selections, error) {
	var all Selections
	decoder := json.NewDecoder(bytes.NewReader(selection))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all); err != nil {
		return all, fmt.Errorf("read selection.json: %w", err)
	}
	return all, nil
}

// For returns the environments of a run with their cases. No other has a digest that
// the first has not.
func For(short bool) ([]Environment, error) {
	all, err := Load()
	if err != nil {
		return nil, err
	}
	if short {
		return []Environment{{"user", all.Short}, {"oneid", all.Short}}, nil
	}
	return []Environment{
		{"user", all.Whole},
		{"oneid", all.Whole},
		{"root", all.Root},
		{"unshare", all.Container},
		{"docker", all.Docker},
	}, nil
}

// Cases returns the names that results have: the suite and the case.
func (s Selection) Cases() []string {
	var list []string
	for _, suite := range []struct {
		name  string
		cases []string
	}{
		{"check", s.Checks},
		{"store", s.Stores},
		{"conformance", s.Conformance},
		{"digests", s.Digests},
		{"scenarios", s.Scenarios},
		{"scenarios", s.Containers},
	} {
		for _, name := range suite.cases {
			list = append(list, suite.name+"/"+name)
		}
	}
	return list
}

// Pattern selects subtests of a test, for -test.run.
func Pattern(test string, cases []string) string {
	var list []string
	for _, c := range cases {
		list = append(list, "^"+test+"$/^"+strings.ReplaceAll(c, "/", "$/^")+"$")
	}
	return strings.Join(list, "|")
}

// Result is what came of one case in one environment.
type Result struct {
	Environment, Case string
	// Why is the end of the output of a case that failed, or what a case that
	// passed has to say about how.
	Why     string `json:",omitempty"`
	Passed  bool
	Seconds float64 `json:",omitempty"`
	// Done is set in the last line, which is of no case.
	Done bool `json:",omitempty"`
}

// Key is the environment and the case.
func (r Result) Key() string { return r.Environment + "/" + r.Case }

// Compare orders results by environment and case.
func Compare(a, b Result) int { return cmp.Compare(a.Key(), b.Key()) }
