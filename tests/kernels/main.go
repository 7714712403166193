// Command kernels boots virtual machines with Debian kernels and runs a selection of the
// tests in each:
//
//	kernels -cache DIR -stage DIR [-short] [-run RE] [-results DIR] [-ssh PORT] [MACHINE…]
//	kernels -document FILE -results DIR
//	kernels -digests [-short]
//	kernels -names
//
// The first form runs the tests. It must be run by root, because it makes file systems.
// The cache keeps the kernels and the root file systems of the machines. The stage is a
// directory with the programs and cases, which tests/run puts there. Results are printed
// as events of go test, with one package for each machine. With -results, they are also
// written to DIR/MACHINE.tsv. With -run, only the lines of the selected cases are
// replaced in that file.
//
// The second form writes the table of docs/environments.md from the results. The third
// form prints a pattern for -test.run. It selects the cases whose digests are compared
// with those of this host. The fourth form prints the names of the machines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/shale-build/shale/tests/kernels/plan"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var o options
	flag.StringVar(&o.cache, "cache", "", "directory that keeps root file systems and kernels")
	flag.StringVar(&o.stage, "stage", "", "directory of programs and cases")
	flag.StringVar(&o.results, "results", "", "directory of results")
	flag.StringVar(&o.run, "run", "", "regular expression for ENVIRONMENT/CASE")
	flag.StringVar(&o.ssh, "ssh", "", "port of loopback to be forwarded to the machine's sshd, to look into it")
	flag.BoolVar(&o.short, "short", false, "run the short selection")
	flag.DurationVar(&o.timeout, "timeout", 3*time.Hour, "of each machine")
	document := flag.String("document", "", "write the table of this document")
	digests := flag.Bool("digests", false, "print the cases whose digests are compared")
	names := flag.Bool("names", false, "print the machines' names")
	flag.Parse()
	var err error
	switch {
	case *names:
		for _, m := range machines {
			fmt.Println(m.name)
		}
	case *digests:
		err = o.printDigests()
	case *document != "":
		err = writeTable(*document, o.results)
	default:
		err = o.machines(ctx, flag.Args())
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

type options struct {
	cache, stage, results, run, ssh string
	short                           bool
	timeout                         time.Duration
}

// machines runs the tests in each machine. A failure in one machine does not stop the
// tests of the other machines.
func (o options) machines(ctx context.Context, names []string) error {
	if o.cache == "" || o.stage == "" {
		return errors.New("-cache and -stage are required; run make kernels")
	}
	list, err := choose(names)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range list {
		began := time.Now()
		r := &recorder{machine: m, out: os.Stdout}
		if err := o.machine(ctx, m, r); err != nil {
			r.broken(err)
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
		r.end(time.Since(began))
		if o.results != "" && !o.short && len(r.results) > 0 {
			errs = append(errs, o.keep(m, r.results, o.run == "" && !r.incomplete))
		}
	}
	return errors.Join(errs...)
}

// keep writes the results of m to its file. If whole is false, because of -run or because
// the machine ended early, only the lines of the cases in results are replaced.
func (o options) keep(m machine, results []plan.Result, whole bool) error {
	file := filepath.Join(o.results, m.name+".tsv")
	if whole {
		return writeResults(file, results)
	}
	old, err := readResults(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, r := range old {
		if !slices.ContainsFunc(results, func(now plan.Result) bool { return now.Key() == r.Key() }) {
			results = append(results, r)
		}
	}
	return writeResults(file, results)
}

// printDigests prints the pattern that selects the digest cases of TestSums.
func (o options) printDigests() error {
	environments, err := plan.For(o.short)
	if err != nil {
		return err
	}
	fmt.Println(plan.Pattern("TestSums", environments[0].Digests))
	return nil
}
