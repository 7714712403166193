package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// suite is a selection of the subtests of a compiled test binary.
type suite struct {
	// name is the first part of the cases' names in results.
	name, binary, test string
	cases              []string
	env                []string
}

func (g *guest) suites(e environment) {
	conformance := []string{
		"CONFORMANCE_CASES=" + plan.Stage + "/cases", "CONFORMANCE_IMAGES=" + g.images, "CONFORMANCE_ENVIRONMENT=" + e.conformance,
	}
	if e.container != "" {
		conformance = append(conformance, "CONFORMANCE_CONTAINER="+plan.Stage+"/container", "CONFORMANCE_ROOTFS="+rootfs())
	}
	g.suite(e, suite{name: "conformance", binary: "conformance.test", test: "TestCases", cases: e.selected.Conformance, env: conformance})
	digests := append(slices.Clone(conformance), "CONFORMANCE_WANT="+plan.Stage+"/sums.json")
	g.suite(e, suite{name: "digests", binary: "conformance.test", test: "TestSums", cases: e.selected.Digests, env: digests})
	scenarios := suite{name: "scenarios", binary: "e2e.test", test: "TestScripts", env: []string{"SHALE_EXAMPLES=" + plan.Stage + "/examples"}}
	if e.container == "" {
		scenarios.cases, scenarios.env = e.selected.Scenarios, append(scenarios.env, "SHALE_SCRIPTS="+plan.Stage+"/scripts")
	} else {
		scenarios.cases = e.selected.Containers
		scenarios.env = append(scenarios.env, "SHALE_SCRIPTS="+plan.Stage+"/environments", "SHALE_CONTAINER="+plan.Stage+"/container", "SHALE_ROOTFS="+rootfs())
	}
	g.suite(e, scenarios)
}

// suite runs the chosen cases of s and reports each. A case without a result in the
// output of the binary is reported as failed.
func (g *guest) suite(e environment, s suite) {
	s.cases = slices.DeleteFunc(slices.Clone(s.cases), func(c string) bool { return !g.wants(e, s.name+"/"+c) })
	if len(s.cases) == 0 {
		return
	}
	missing := slices.Clone(s.cases)
	rest, err := s.run(e, func(r plan.Result) {
		missing = slices.DeleteFunc(missing, func(c string) bool { return s.name+"/"+c == r.Case })
		g.report(r)
	})
	for _, c := range missing {
		g.report(plan.Result{Environment: e.name, Case: s.name + "/" + c, Why: fmt.Sprintf("not run (%v):\n%s", err, rest)})
	}
}

// run starts the test binary and passes the results of its cases to report. rest is the
// output that belongs to no case.
func (s suite) run(e environment, report func(plan.Result)) (rest string, err error) {
	cmd := s.command(e)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	rest = s.read(out, e.name, report)
	return rest, cmd.Wait()
}

// command returns a command that runs the test binary in e. It prints the events of the
// tests to standard output.
func (s suite) command(e environment) *exec.Cmd {
	tmp := "/var/tmp"
	if e.container != "" && s.binary == "conformance.test" {
		tmp = "/media" // shared by the tests and the containers, as in tests/run
	}
	args := []string{filepath.Join(plan.Stage, "test2json"), "-t", "-p", s.name, "env", "TMPDIR=" + tmp, "SHALE_BIN=" + plan.Stage + "/shale"}
	for _, name := range []string{"SHALE_REGISTRY", "SHALE_REGISTRY_AUTH"} {
		args = append(args, name+"="+os.Getenv(name))
	}
	args = append(append(args, s.env...), filepath.Join(plan.Stage, s.binary), "-test.v=test2json", "-test.timeout=90m", "-test.parallel=2", "-test.run", plan.Pattern(s.test, s.cases))
	if e.container == "" {
		return session(e.user, args)
	}
	if tmp == "/media" {
		args = append([]string{"sh", "-c", `mkdir -p /var/tmp/shared && exec unshare --mount "$0" /var/tmp/shared /media "$@"`, plan.Stage + "/shared"}, args...)
	}
	return session("root", args)
}

// event is a line of the output of test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// read reads the events of a run and reports every selected case that ends. It returns
// the output that belongs to no case.
func (s suite) read(events io.Reader, environment string, report func(plan.Result)) (rest string) {
	outputs := map[string]*strings.Builder{}
	scanner := bufio.NewScanner(events)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		var e event
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			rest += scanner.Text() + "\n"
			continue
		}
		name := strings.TrimPrefix(e.Test, s.test+"/")
		if !slices.Contains(s.cases, name) {
			if e.Action == "output" {
				rest += e.Output
			}
			continue
		}
		if outputs[name] == nil {
			outputs[name] = &strings.Builder{}
		}
		switch e.Action {
		case "output":
			outputs[name].WriteString(e.Output)
		case "pass", "fail", "skip":
			r := plan.Result{Environment: environment, Case: s.name + "/" + name, Passed: e.Action == "pass", Seconds: e.Elapsed}
			if !r.Passed {
				r.Why = outputs[name].String()
			}
			report(r)
		}
	}
	return rest
}
