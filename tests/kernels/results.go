package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// difference is a set of cases that cannot pass on some machines, for one reason.
type difference struct {
	Machines, Environments, Cases []string
	// Why is the reason, as printed in docs/environments.md.
	Why string
	// Says is a regular expression that must match the output of the failed case.
	Says string
}

//go:embed differences.json
var differencesJSON []byte

func loadDifferences() ([]difference, error) {
	var list []difference
	decoder := json.NewDecoder(bytes.NewReader(differencesJSON))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("read differences.json: %w", err)
	}
	return list, nil
}

// has reports whether d covers the result r of a machine. An empty list of machines or
// environments covers all of them.
func (d difference) has(machine string, r plan.Result) bool {
	in := func(list []string, name string) bool { return len(list) == 0 || slices.Contains(list, name) }
	return in(d.Machines, machine) && in(d.Environments, r.Environment) && slices.Contains(d.Cases, r.Case)
}

// judge returns an error if a result is not as expected. A case that is listed in known
// must fail for the recorded reason; all other cases must pass. For a listed case that
// fails as expected, judge sets r.Why to the reason of the list.
func judge(known []difference, machine string, r *plan.Result) error {
	for _, d := range known {
		if !d.has(machine, *r) {
			continue
		}
		if r.Passed {
			return fmt.Errorf("the case holds here: take it out of differences.json (%s)", d.Why)
		}
		says, err := regexp.Compile("(?m)" + d.Says)
		if err != nil {
			return err
		}
		if !says.MatchString(r.Why) {
			return fmt.Errorf("the case fails otherwise than differences.json says (%s), want %q:\n%s", d.Why, d.Says, r.Why)
		}
		r.Why = d.Why
		return nil
	}
	if !r.Passed {
		return fmt.Errorf("%s", r.Why)
	}
	return nil
}

// recorder prints results as events of go test and keeps them.
type recorder struct {
	machine machine
	out     io.Writer
	results []plan.Result
	known   []difference
	// failed is set if a result is not as expected. incomplete is set if the machine
	// ended before its tests did.
	failed, incomplete bool
}

// event is a line of the output of go test -json.
type event struct {
	Action, Package string
	Test            string  `json:",omitempty"`
	Output          string  `json:",omitempty"`
	Elapsed         float64 `json:",omitempty"`
}

func (r *recorder) event(e event) {
	e.Package = r.machine.name
	data, _ := json.Marshal(e) //nolint:errchkjson // strings and a number
	fmt.Fprintf(r.out, "%s\n", data)
}

// add judges a result, prints it and keeps it.
func (r *recorder) add(result plan.Result) {
	e := event{Action: "pass", Test: result.Key(), Elapsed: result.Seconds}
	if r.known == nil {
		var err error
		if r.known, err = loadDifferences(); err != nil {
			r.broken(err)
			return
		}
	}
	if err := judge(r.known, r.machine.name, &result); err != nil {
		r.event(event{Action: "output", Test: e.Test, Output: err.Error() + "\n"})
		e.Action, r.failed = "fail", true
		if result.Passed {
			result.Why = "holds, but is listed"
		}
	}
	r.event(e)
	// Print to standard error too: tests/tally prints only at the end of the run, which
	// can be hours away.
	fmt.Fprintf(os.Stderr, "%s %s: %s (%.0f s)\n", r.machine.name, e.Test, e.Action, result.Seconds)
	if e.Action == "fail" {
		fmt.Fprintln(os.Stderr, "    "+strings.ReplaceAll(result.Why, "\n", "\n    "))
	}
	r.results = append(r.results, result)
}

// broken prints the error that kept the machine from running its tests.
func (r *recorder) broken(err error) {
	r.failed, r.incomplete = true, true
	r.event(event{Action: "output", Test: "machine", Output: err.Error() + "\n"})
	r.event(event{Action: "fail", Test: "machine"})
}

func (r *recorder) end(elapsed time.Duration) {
	action := "pass"
	if r.failed {
		action = "fail"
	}
	r.event(event{Action: action, Elapsed: elapsed.Seconds()})
}

// writeResults writes a line for each case: environment, case, result and reason. Of the
// reason, only the first line is written.
func writeResults(file string, results []plan.Result) error {
	results = slices.SortedFunc(slices.Values(results), plan.Compare)
	var out strings.Builder
	for _, r := range results {
		word := "fails"
		if r.Passed {
			word = "holds"
		}
		why, _, _ := strings.Cut(strings.TrimSpace(r.Why), "\n")
		fmt.Fprintf(&out, "%s\t%s\t%s\t%s\n", r.Environment, r.Case, word, strings.ReplaceAll(why, "\t", " "))
	}
	return os.WriteFile(file, []byte(out.String()), 0o644)
}

// readResults reads a file written by writeResults.
func readResults(file string) ([]plan.Result, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var results []plan.Result
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 || f[2] != "holds" && f[2] != "fails" {
			return nil, fmt.Errorf("read %s: %q is no result", file, line)
		}
		results = append(results, plan.Result{Environment: f[0], Case: f[1], Passed: f[2] == "holds", Why: f[3]})
	}
	return results, nil
}
