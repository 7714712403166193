// Command bench compares shale with the other rootless builders that are found on PATH.
//
// For each case, every builder has one warm-up build. Then each builder runs once in
// every round, so that other load on the machine affects all builders alike. bench prints
// the median, the fastest and the slowest time, and the ratio of each median to shale's.
// It checks no limits, because times depend on the machine. It prints a description of
// the machine with the times.
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

// report is the content of the JSON file.
type report struct {
	Machine  machine  `json:"machine"`
	Builders []string `json:"builders"`
	Results  []result `json:"results"`
}

// result holds the times of one builder in one case.
type result struct {
	Case    string    `json:"case"`
	Builder string    `json:"builder"`
	Seconds []float64 `json:"seconds"`
	Median  float64   `json:"median_seconds"`
	// Ratio is the median divided by shale's median.
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

// measure runs every builder once in each round, after a round of warm-up builds. It
// returns the times of each builder. If shale's step printed its own time, the last
// result holds the times of the command alone.
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
				continue // the first round warms up
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

// took matches the line that a timed command prints.
var took = regexp.MustCompile(`took ([0-9.]+) to ([0-9.]+)`)

// itself returns the time in seconds that the command of a step took by itself. It is a
// lower limit for the build.
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
