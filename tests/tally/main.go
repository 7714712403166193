// Command tally reads the output of go test -json or test2json from standard input. It
// prints one line for each package, after the full output of its failed tests. It also
// appends the counts to a file, from which it later prints the totals:
//
//	go test -json ./... | tally -totals FILE -suite unit
//	tally -totals FILE -sum
//
// With -table, it also prints a table of the durations that tests measured. A test
// reports one by printing "measured NAME DURATION".
//
// A test with subtests is not counted, unless it fails although none of its subtests
// fails. A package that fails outside its tests, for example because it does not compile,
// counts as one failed test. The exit status is 1 if a test failed or if no test passed.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	totals := flag.String("totals", "", "file that collects the counts")
	suite := flag.String("suite", "", "name of what is read")
	sum := flag.Bool("sum", false, "print the totals instead of reading")
	table := flag.Bool("table", false, "print what the tests measured")
	flag.Parse()
	failed, err := run(*totals, *suite, *sum, *table, os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tally:", err)
	}
	if err != nil || failed {
		os.Exit(1)
	}
}

func run(totals, suite string, sum, table bool, in io.Reader, out io.Writer) (failed bool, err error) {
	if sum {
		return printSum(totals, out)
	}
	results, err := read(in, out)
	if err != nil {
		return true, err
	}
	c := results.report(suite, out)
	if table {
		if err := results.writeTable(suite, out); err != nil {
			return true, err
		}
	}
	file, err := os.OpenFile(totals, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return true, err
	}
	if _, err := fmt.Fprintf(file, "%d %d %d\n", c.passed, c.failed, c.skipped); err != nil {
		return true, err
	}
	return c.bad(), file.Close()
}

// counts are the numbers of tests by result.
type counts struct{ passed, failed, skipped int }

func (c *counts) add(other counts) {
	c.passed += other.passed
	c.failed += other.failed
	c.skipped += other.skipped
}

func (c counts) bad() bool { return c.failed > 0 || c.passed == 0 }

func printSum(totals string, out io.Writer) (failed bool, err error) {
	data, err := os.ReadFile(totals)
	if err != nil {
		return true, err
	}
	var all counts
	for line := range strings.Lines(string(data)) {
		var c counts
		if _, err := fmt.Sscan(line, &c.passed, &c.failed, &c.skipped); err != nil {
			return true, fmt.Errorf("read %s: %w", totals, err)
		}
		all.add(c)
	}
	if all.skipped > 0 {
		fmt.Fprintf(out, "%d skipped\n", all.skipped)
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", all.passed, all.failed)
	return all.bad(), nil
}

// event is one line of the output of go test -json.
type event struct {
	Action     string
	Package    string
	ImportPath string // set for build output
	Test       string
	Output     string
	Elapsed    float64
}

// outcome is the result of one test. If test is "", it is the result of the package
// itself.
type outcome struct {
	pkg, test string
	action    string // pass, fail or skip; "" if the test did not end
	elapsed   float64
	output    strings.Builder
}

// results are the outcomes in the order of their first events.
type results struct {
	order []*outcome
	byKey map[[2]string]*outcome
}

func (r *results) get(pkg, test string) *outcome {
	key := [2]string{pkg, test}
	o := r.byKey[key]
	if o == nil {
		o = &outcome{pkg: pkg, test: test}
		r.byKey[key] = o
		r.order = append(r.order, o)
	}
	return o
}

// read collects events. It copies build output, and lines that are not events, to out.
func read(in io.Reader, out io.Writer) (*results, error) {
	r := &results{byKey: map[[2]string]*outcome{}}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		var e event
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Fprintln(out, scanner.Text())
			continue
		}
		switch e.Action {
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "output":
			r.get(e.Package, e.Test).output.WriteString(e.Output)
		case "pass", "fail", "skip":
			o := r.get(e.Package, e.Test)
			o.action, o.elapsed = e.Action, e.Elapsed
		case "run":
			r.get(e.Package, e.Test)
		}
	}
	return r, scanner.Err()
}

// report prints a line for each package, after the output of its failed and skipped
// tests.
func (r *results) report(suite string, out io.Writer) counts {
	var packages []string
	for _, o := range r.order {
		if o.pkg != "" && !slices.Contains(packages, o.pkg) {
			packages = append(packages, o.pkg)
		}
	}
	slices.Sort(packages)
	var all counts
	for _, pkg := range packages {
		all.add(r.reportPackage(suite, pkg, out))
	}
	return all
}

func (r *results) reportPackage(suite, pkg string, out io.Writer) counts {
	var c counts
	tests := slices.DeleteFunc(slices.Clone(r.order), func(o *outcome) bool { return o.pkg != pkg || o.test == "" })
	for _, o := range tests {
		children := slices.DeleteFunc(slices.Clone(tests), func(other *outcome) bool {
			return !strings.HasPrefix(other.test, o.test+"/")
		})
		failedInside := slices.ContainsFunc(children, func(child *outcome) bool { return child.failed() })
		switch {
		case len(children) > 0 && (!o.failed() || failedInside):
			continue // its subtests are counted instead
		case o.failed():
			c.failed++
			fmt.Fprintf(out, "--- FAIL: %s %s (%.1fs)\n%s", pkg, o.test, o.elapsed, o.output.String())
		case o.action == "skip":
			c.skipped++
			fmt.Fprintf(out, "--- SKIP: %s %s\n%s", pkg, o.test, o.output.String())
		default:
			c.passed++
		}
	}
	own := r.get(pkg, "")
	if own.failed() && c.failed == 0 {
		c.failed++
		fmt.Fprint(out, own.output.String())
	}
	if c.passed+c.failed+c.skipped > 0 {
		word := cmp.Or(map[bool]string{true: "FAIL"}[c.failed > 0], "ok")
		fmt.Fprintf(out, "%-4s %-12s %s\t%d passed, %d failed, %d skipped, %.1fs\n", word, suite, pkg, c.passed, c.failed, c.skipped, own.elapsed)
	}
	return c
}

// failed reports whether the test failed or did not end.
func (o *outcome) failed() bool { return o.action == "fail" || o.action == "" }
