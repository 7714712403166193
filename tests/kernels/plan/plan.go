// Package plan defines the data that tests/kernels exchanges with its guest program in
// the virtual machine: the plan and the results.
package plan

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// Paths, names and addresses that the host and the virtual machine both use.
const (
	// Stage is the directory where programs and cases are mounted, read-only.
	Stage = "/stage"
	// File is the name of the plan in Stage.
	File = "plan.json"
	// Port is the virtio serial port for results. Each result is one line of JSON.
	Port = "shale.results"
	// Registry is the address of the registry that serves the base images.
	Registry = "127.77.0.1:5077"
	// Hello is the response of the web server outside the machine.
	Hello = "shale-outside"
)

// Plan is the list of environments and cases that one machine runs.
type Plan struct {
	// Environments refer by name to the map environments in guest/environments.go.
	Environments []Environment
	// Outside is the address of a web server on the host, as seen from the machine.
	Outside string
	// Run is a regular expression for "ENVIRONMENT/CASE". If it is empty, all cases run.
	Run string
}

// Environment is the name of an environment and the cases that run in it.
type Environment struct {
	Name string
	Selection
}

// Selection lists the cases of each suite.
type Selection struct {
	// Checks are scripts of guest/checks. Stores are file systems of guest/stores.go.
	Checks, Stores []string
	// Conformance are cases of tests/conformance.
	Conformance []string
	// Digests are cases of tests/conformance. Their images must have the same digests as
	// on the host.
	Digests []string
	// Scenarios are scripts of tests/scripts. Containers are scripts of
	// tests/environments/scripts, which start containers as root.
	Scenarios, Containers []string
}

//go:embed selection.json
var selection []byte

// Selections holds one Selection for each kind of environment: Whole for unprivileged
// users, Root for root, Container for containers that allow namespaces, and Docker for
// those that do not. Short is the selection of make ci.
type Selections struct{ Whole, Root, Container, Docker, Short Selection }

// Load returns the selections of selection.json, which is embedded. It returns an error
// if the file has an unknown field.
func Load() (Selections, error) {
	var all Selections
	decoder := json.NewDecoder(bytes.NewReader(selection))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&all); err != nil {
		return all, fmt.Errorf("read selection.json: %w", err)
	}
	return all, nil
}

// For returns the environments of a run with their cases, those of make ci if short is
// set. If any environment compares the digests of a case, the first environment must
// list that case too.
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

// Cases returns the names of the selected cases as they stand in results: SUITE/CASE.
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

// Pattern returns a regular expression for -test.run that selects these subtests of test.
func Pattern(test string, cases []string) string {
	var list []string
	for _, c := range cases {
		list = append(list, "^"+test+"$/^"+strings.ReplaceAll(c, "/", "$/^")+"$")
	}
	return strings.Join(list, "|")
}

// Result is the result of one case in one environment.
type Result struct {
	Environment, Case string
	// Why is the end of the output if the case failed. If it passed, Why may hold notes
	// of the case about the way in which it passed.
	Why     string `json:",omitempty"`
	Passed  bool
	Seconds float64 `json:",omitempty"`
	// Done is set only in the last line, which does not belong to a case.
	Done bool `json:",omitempty"`
}

// Key returns "ENVIRONMENT/CASE".
func (r Result) Key() string { return r.Environment + "/" + r.Case }

// Compare compares the keys of two results. It is used for sorting.
func Compare(a, b Result) int { return cmp.Compare(a.Key(), b.Key()) }
