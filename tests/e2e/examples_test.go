//go:build e2e

package e2e

import (
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// timed NAME CMD [ARG…] runs a command and logs its duration for the table of make
// examples.
func timed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: timed NAME CMD [ARG…]")
	}
	start := time.Now()
	ts.Check(ts.Exec(args[1], args[2:]...))
	ts.Logf("measured %s %v", args[0], time.Since(start).Round(time.Millisecond))
}

// ran [PATTERN…] compares the steps that the last build ran with patterns. It fails if a
// step matches no pattern, or if a pattern matches no step. Without patterns, every step
// must have come from the cache.
func ran(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("unsupported: ! ran")
	}
	steps, all := stepsRun(ts.ReadFile("stderr"))
	if all == 0 {
		ts.Fatalf("the last command shows no steps of a build")
	}
	unmatched := slices.Clone(steps)
	for _, arg := range args {
		pattern, err := regexp.Compile(arg)
		ts.Check(err)
		if !slices.ContainsFunc(steps, pattern.MatchString) {
			ts.Fatalf("no step that ran matches %q, only these did:\n%s", arg, strings.Join(steps, "\n"))
		}
		unmatched = slices.DeleteFunc(unmatched, pattern.MatchString)
	}
	if len(unmatched) > 0 {
		ts.Fatalf("these steps ran, too:\n%s", strings.Join(unmatched, "\n"))
	}
}

var (
	stepLine   = regexp.MustCompile(`^#(\d+) \[(?:\S+ )? *\d+/\d+\] (.*)$`)
	cachedLine = regexp.MustCompile(`^#(\d+) CACHED$`)
)

// stepsRun returns the steps in a build's plain progress that were not cached, and the
// number of all steps. FROM is not a step.
func stepsRun(progress string) (steps []string, all int) {
	names, cached := map[string]string{}, map[string]bool{}
	var order []string
	for line := range strings.Lines(progress) {
		line = strings.TrimSuffix(line, "\n")
		if m := stepLine.FindStringSubmatch(line); m != nil && names[m[1]] == "" && !strings.HasPrefix(m[2], "FROM ") {
			names[m[1]] = m[2]
			order = append(order, m[1])
		} else if m := cachedLine.FindStringSubmatch(line); m != nil {
			cached[m[1]] = true
		}
	}
	for _, number := range order {
		if !cached[number] {
			steps = append(steps, names[number])
		}
	}
	return steps, len(order)
}

// freeport NAME sets a variable to a free port of loopback.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeport NAME")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(listener.Addr().(*net.TCPAddr).Port))
	ts.Check(listener.Close())
}

// until CMD [ARG…] repeats a command until it succeeds, for example while a server
// starts. It fails after a minute.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until CMD [ARG…]")
	}
	deadline := time.Now().Add(time.Minute)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no success within a minute: %v", err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
