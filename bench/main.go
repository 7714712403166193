// Command bench compares shale with the other rootless builders found on PATH.
//
// For each case every builder gets a warm-up and then takes its turn in every
// round, so that what disturbs the machine disturbs all alike. It prints the
// medians with their spread and how many times slower than shale each one is.
// It asserts nothing: times depend on the machine, which is why the machine
// stands beside them.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	var opts options
	flag.IntVar(&opts.rounds, "rounds", 0, "rounds per case (default 5, with -scale 3)")
	flag.IntVar(&opts.files, "files", 20000, "files in the cases that have many")
	flag.StringVar(&opts.json, "json", "", "file for the results as JSON")
	flag.StringVar(&opts.only, "case", "", "run only the cases, or with -scale the axes, whose names begin with this")
	flag.BoolVar(&opts.all, "all", false, "also run the cases that take minutes, and the point of a million files")
	flag.BoolVar(&opts.scale, "scale", false, "measure how times grow with the work instead")
	flag.StringVar(&opts.svg, "svg", "", "with -scale: file for the plot")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	work, rounds := run, 5
	if opts.scale {
		work, rounds = scale, 3
	}
	opts.rounds = cmp.Or(opts.rounds, rounds)
	err := work(ctx, opts, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds, files int
	json, only    string
	all, scale    bool
	svg           string
}

// report is what is written as JSON.
type report struct {
	Machine  machine  `json:"machine"`
	Builders []string `json:"builders"`
	Results  []result `json:"results"`
}

// result is one builder's times in one case.
type result struct {
	Case    string    `json:"case"`
	Builder string    `json:"builder"`
	Seconds []float64 `json:"seconds"`
	Median  float64   `json:"median_seconds"`
	// Ratio is the median over shale's.
	Ratio float64 `json:"ratio_to_shale"`
}

func run(ctx context.Context, opts options, out io.Writer) error {
	if opts.rounds < 1 {
		return errors.New("-rounds must be at least 1")
	}
	bench, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer bench.cleanUp()

	rep := report{Machine: describeMachine(), Builders: bench.versions()}
	fmt.Fprintln(out, rep.Machine)
	fmt.Fprintln(out, strings.Join(rep.Builders, "; "))
	for _, c := range cases(opts) {
		if !strings.HasPrefix(c.name, opts.only) || c.slow && !opts.all && opts.only == "" {
			continue
		}
		results, err := bench.measure(ctx, c, opts.rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		rep.Results = append(rep.Results, results...)
		if err := printTable(out, c.name, c.what, results); err != nil {
			return err
		}
	}
	for _, c := range transferCases() {
		if !strings.HasPrefix(c.name, opts.only) || !opts.all && opts.only == "" {
			continue
		}
		results, err := bench.transfer(ctx, c, opts.rounds)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		rep.Results = append(rep.Results, results...)
		if err := printTable(out, c.name, c.what, results); err != nil {
			return err
		}
	}
	if opts.json == "" {
		return nil
	}
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(opts.json, append(data, '\n'), 0o644)
}

// measure lets every builder take its turn in each round.
func (b *bench) measure(ctx context.Context, c benchCase, rounds int) ([]result, error) {
	dir := filepath.Join(b.work, c.name)
	if err := c.prepare(dir, b.registry); err != nil {
		return nil, err
	}
	results := make([]result, len(b.builders))
	command := result{Builder: "(the RUN itself)"}
	for round := range rounds + 1 {
		for i, builder := range b.builders {
			if err := c.vary(dir, b.registry, fmt.Sprintf("%d-%s", round, builder.name)); err != nil {
				return nil, err
			}
			start := time.Now()
			said, err := builder.build(ctx, b, dir)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", builder.name, err)
			}
			if round == 0 {
				continue // the first one warms up
			}
			results[i].Seconds = append(results[i].Seconds, time.Since(start).Seconds())
			if t, ok := itself(said); ok && builder.name == "shale" {
				command.Seconds = append(command.Seconds, t)
			}
		}
	}
	for i, builder := range b.builders {
		results[i].Builder = builder.name
	}
	if len(command.Seconds) > 0 {
		results = append(results, command)
	}
	for i := range results {
		r := &results[i]
		r.Case, r.Median = c.name, median(r.Seconds)
		r.Ratio = r.Median / median(results[0].Seconds)
	}
	return results, nil
}

// took is what a timed command says of itself.
var took = regexp.MustCompile(`took ([0-9.]+) to ([0-9.]+)`)

// itself is how many seconds the command of a step took, of all that its build
// took; nobody builds in less.
func itself(said []byte) (float64, bool) {
	m := took.FindSubmatch(said)
	if m == nil {
		return 0, false
	}
	from, err := strconv.ParseFloat(string(m[1]), 64)
	to, err2 := strconv.ParseFloat(string(m[2]), 64)
	return to - from, errors.Join(err, err2) == nil
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func printTable(out io.Writer, name, what string, results []result) error {
	fmt.Fprintf(out, "\n%s: %s\n", name, what)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "builder\tmedian\tfastest\tslowest\tratio\t")
	for _, r := range results {
		fmt.Fprintf(table, "%s\t%.3f s\t%.3f s\t%.3f s\t%.1f×\t\n",
			r.Builder, r.Median, slices.Min(r.Seconds), slices.Max(r.Seconds), r.Ratio)
	}
	return table.Flush()
}
