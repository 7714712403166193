package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

// axis is one dimension in which the work grows.
type axis struct {
	name, what string
	// unit names the items that n counts.
	unit   string
	points []int
	// many is an additional point for -all. If it is 0, there is none.
	many int
	// others is the largest point at which other builders are measured.
	others int
	// same is set if the work is the same at every point.
	same bool
	// workload returns the work of size n.
	workload func(n int) workload
}

// workload is built cold, with all content new, and then warm, with no change.
type workload struct {
	benchCase
	// images is the number of unrelated images in the store.
	images int
	// builds is the number of builds that run at the same time.
	builds int
}

func axes() []axis {
	one := func(c benchCase) workload {
		c.change = everything
		return workload{benchCase: c, builds: 1}
	}
	return []axis{
		{
			name: "steps", what: "small RUN steps", unit: "steps", points: []int{10, 100, 500}, others: 100,
			workload: func(n int) workload {
				return one(benchCase{base: "busybox", dockerfile: repeat(n, "RUN echo {seed} %d > /f%[1]d\n")})
			},
		},
		{
			name: "files", what: "COPY of files of 100 bytes", unit: "files", points: []int{1_000, 10_000, 100_000}, many: 1_000_000, others: 10_000,
			workload: func(n int) workload {
				return one(benchCase{base: "busybox", files: n, size: 100, dockerfile: "RUN echo {seed}\nCOPY tree /tree\n"})
			},
		},
		{
			name: "images", what: "FROM scratch, LABEL, COPY of one file, with images in the store", unit: "images", points: []int{1, 20, 200}, others: 200, same: true,
			workload: func(n int) workload {
				w := one(benchCase{dockerfile: "LABEL seed={seed}\nCOPY file /\n"})
				w.images = n
				return w
			},
		},
		{
			name: "builds", what: "builds of 10 small RUN steps at once, in one store", unit: "builds", points: []int{1, 2, 4, 8}, others: 0,
			workload: func(n int) workload {
				w := one(benchCase{base: "busybox", dockerfile: repeat(10, "RUN echo {seed} %d > /f%[1]d\n")})
				w.builds = n
				return w
			},
		},
	}
}

// scaleReport is the content of the JSON file.
type scaleReport struct {
	Machine  machine      `json:"machine"`
	Builders []string     `json:"builders"`
	Results  []scalePoint `json:"results"`
}

// scalePoint holds the times of one builder at one size of the work.
type scalePoint struct {
	Axis    string    `json:"axis"`
	Builder string    `json:"builder"`
	Warm    bool      `json:"warm"`
	N       int       `json:"n"`
	Seconds []float64 `json:"seconds"`
	Median  float64   `json:"median_seconds"`
	// CPU is the median of user and system time in seconds.
	CPU float64 `json:"median_cpu_seconds"`
	// Growth is the exponent by which the time grew since the previous point. 1 means
	// that time is proportional to the work, and 0 that it is constant. CPUGrowth is the
	// exponent of the CPU time.
	Growth    *float64 `json:"growth,omitempty"`
	CPUGrowth *float64 `json:"cpu_growth,omitempty"`

	cpus []float64
}

// enough is the time after which a builder gets no more rounds for a point.
const enough = 40 * time.Second

// scale measures all axes.
func scale(ctx context.Context, opts options, out io.Writer) error {
	b, err := newBench(ctx)
	if err != nil {
		return err
	}
	defer b.cleanUp()
	// Compare only with buildah, which is easy to install.
	b.builders = slices.DeleteFunc(b.builders, func(c builder) bool { return c.name != "shale" && c.name != "buildah" })

	rep := scaleReport{Machine: describeMachine(), Builders: b.versions()}
	fmt.Fprintln(out, rep.Machine)
	fmt.Fprintln(out, strings.Join(rep.Builders, "; "))
	var failed []error
	for _, a := range axes() {
		if !strings.HasPrefix(a.name, opts.only) || ctx.Err() != nil {
			continue
		}
		if opts.all && a.many > 0 {
			a.points = append(a.points, a.many)
		}
		// Print the points that were measured even if the others fail.
		results, err := b.along(ctx, a, opts.rounds)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", a.name, err))
		}
		rep.Results = append(rep.Results, results...)
		if err := printScale(out, a, results); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	fmt.Fprintf(out, "\n%s\n", judge(rep.Results))
	return errors.Join(append(failed, rep.write(opts))...)
}

// write writes the files that the options name.
func (rep scaleReport) write(opts options) error {
	if opts.svg != "" {
		if err := plotScale(opts.svg, rep); err != nil {
			return fmt.Errorf("plot: %w", err)
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

// along measures all points of an axis. After an error, it returns the points measured so
// far.
func (b *bench) along(ctx context.Context, a axis, rounds int) ([]scalePoint, error) {
	var all []scalePoint
	for _, n := range a.points {
		fmt.Fprintf(os.Stderr, "measuring %d %s", n, a.unit)
		place := filepath.Join(b.work, fmt.Sprintf("%s-%d", a.name, n))
		points, err := b.point(ctx, a, n, rounds, place)
		for _, p := range points {
			fmt.Fprintf(os.Stderr, ", %s %s %.2f s", p.Builder, p.kind(), p.Median)
		}
		fmt.Fprintln(os.Stderr)
		b.remove(place)
		if err != nil {
			return all, fmt.Errorf("%d %s: %w", n, a.unit, err)
		}
		for i := range points {
			points[i].grow(all)
		}
		all = append(all, points...)
	}
	return all, nil
}

// grow sets the growth of a point relative to the previous point of its line.
func (p *scalePoint) grow(before []scalePoint) {
	for _, q := range slices.Backward(before) {
		if q.Builder == p.Builder && q.Warm == p.Warm {
			p.Growth, p.CPUGrowth = exponent(p.Median, q.Median, p.N, q.N), exponent(p.CPU, q.CPU, p.N, q.N)
			return
		}
	}
}

func exponent(now, before float64, n, m int) *float64 {
	e := math.Log(now/before) / math.Log(float64(n)/float64(m))
	return &e
}

// tolerated is the part of an exponent above 1 that is considered noise.
const tolerated = 0.15

// judge returns a sentence that names the points at which CPU time grew faster than the
// work.
func judge(points []scalePoint) string {
	var faster []string
	for _, p := range points {
		if p.Builder == "shale" && p.CPUGrowth != nil && *p.CPUGrowth > 1+tolerated {
			faster = append(faster, fmt.Sprintf("%s, %s, %d (n^%.2f)", p.Axis, p.kind(), p.N, *p.CPUGrowth))
		}
	}
	if len(faster) == 0 {
		return "nothing grew faster than its work"
	}
	return "grew faster than its work: " + strings.Join(faster, "; ")
}

// site holds the build contexts and the store of one builder.
type site struct {
	builder
	dirs []string
	// first is the index of its points in the results: cold, then warm.
	first int
	took  time.Duration
}

// point measures the builders at one size. Each starts with a store below place that
// holds the base image and the images of the workload. Each builder runs once in every
// round.
func (b *bench) point(ctx context.Context, a axis, n, rounds int, place string) ([]scalePoint, error) {
	w := a.workload(n)
	var sites []site
	var points []scalePoint
	for _, c := range b.builders {
		if c.name != "shale" && n > a.others {
			continue
		}
		s, err := b.newSite(ctx, c, w, place)
		if err != nil {
			return nil, err
		}
		s.first = len(points)
		for _, warm := range []bool{false, true} {
			points = append(points, scalePoint{Axis: a.name, Builder: c.name, Warm: warm, N: n})
		}
		sites = append(sites, s)
	}
	for round := range rounds {
		for i := range sites {
			s := &sites[i]
			if s.took > enough {
				continue
			}
			start := time.Now()
			if err := b.round(ctx, *s, w, round, points[s.first:s.first+2]); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			s.took += time.Since(start)
		}
	}
	for i := range points {
		points[i].Median, points[i].CPU = median(points[i].Seconds), median(points[i].cpus)
	}
	return points, nil
}

func (b *bench) newSite(ctx context.Context, c builder, w workload, place string) (s site, err error) {
	home := filepath.Join(filepath.Base(place), c.name)
	s = site{builder: c}
	if s.env, err = b.makeHome(home); err != nil {
		return s, err
	}
	if err := b.addImages(ctx, s.env, w.images, place); err != nil {
		return s, err
	}
	for i := range w.builds {
		dir := filepath.Join(place, c.name, fmt.Sprintf("context-%d", i))
		if err := w.prepare(dir, b.registry); err != nil {
			return s, err
		}
		s.dirs = append(s.dirs, dir)
	}
	// Warm up and pull the base image.
	first := benchCase{base: w.base, dockerfile: "LABEL first=1\n"}
	dir := filepath.Join(place, c.name, "first")
	if err := first.prepare(dir, b.registry); err != nil {
		return s, err
	}
	_, err = s.build(ctx, b, dir)
	return s, err
}

// addImages adds n images to a store. shale makes them for all builders, because it is
// fast and the builders share the store format.
func (b *bench) addImages(ctx context.Context, env []string, n int, place string) error {
	dir := filepath.Join(place, "image")
	if n == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		text := fmt.Sprintf("FROM scratch\nLABEL n=%d\nCOPY file /\n", i)
		for name, content := range map[string]string{"Dockerfile": text, "file": fmt.Sprint(i)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				return err
			}
		}
		c := b.builders[0]
		c.env = env
		c.args = func(_ *bench, dir string) []string {
			return []string{"build", "-t", fmt.Sprintf("image-%d", i), dir}
		}
		if _, err := c.build(ctx, b, dir); err != nil {
			return fmt.Errorf("make an image: %w", err)
		}
	}
	return nil
}

// round measures one cold and one warm build.
func (b *bench) round(ctx context.Context, s site, w workload, round int, points []scalePoint) error {
	for i, dir := range s.dirs {
		if err := w.vary(dir, b.registry, fmt.Sprintf("%d-%d-%s", round, i, s.name)); err != nil {
			return err
		}
		if err := renew(filepath.Join(dir, "tree"), round); err != nil {
			return err
		}
	}
	for i := range points {
		before, start := childTime(), time.Now()
		var group errgroup.Group
		for _, dir := range s.dirs {
			group.Go(func() error {
				_, err := s.build(ctx, b, dir)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		points[i].Seconds = append(points[i].Seconds, time.Since(start).Seconds())
		points[i].cpus = append(points[i].cpus, (childTime() - before).Seconds())
	}
	return nil
}

// renew makes files look new, so that builders read them again. It changes only their
// modes.
func renew(tree string, round int) error {
	modes := []os.FileMode{0o644, 0o640}
	return filepath.WalkDir(tree, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Chmod(path, modes[round%len(modes)]) //nolint:gosec // files of our own
	})
}

// childTime returns the CPU time of all child processes that have ended.
func childTime() time.Duration {
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &ru); err != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

// remove deletes a directory with stores. Some of their files belong to subordinate ids.
func (b *bench) remove(dir string) {
	args := []string{"rm", "-rf", dir}
	if os.Geteuid() != 0 {
		args = append([]string{"unshare", "--map-root-user", "--map-auto"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:noctx // must end even when interrupted
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: remove %s: %v: %s\n", dir, err, out)
	}
}

func printScale(out io.Writer, a axis, points []scalePoint) error {
	fmt.Fprintf(out, "\n%s: %s\n", a.name, a.what)
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "builder\t\t%s\tmedian\tCPU\trounds\tgrowth\tof CPU\t\n", a.unit)
	slices.SortStableFunc(points, func(p, q scalePoint) int { return strings.Compare(p.line(), q.line()) })
	for _, p := range points {
		growth, ofCPU := "", ""
		if p.Growth != nil {
			growth, ofCPU = fmt.Sprintf("n^%.2f", *p.Growth), fmt.Sprintf("n^%.2f", *p.CPUGrowth)
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%.3f s\t%.3f s\t%d\t%s\t%s\t\n",
			p.Builder, p.kind(), p.N, p.Median, p.CPU, len(p.Seconds), growth, ofCPU)
	}
	return table.Flush()
}

func (p scalePoint) kind() string {
	if p.Warm {
		return "warm"
	}
	return "cold"
}

// line returns the name of the point's line. The names sort with shale first.
func (p scalePoint) line() string {
	if p.Builder == "shale" {
		return "shale, " + p.kind()
	}
	return "~" + p.Builder + ", " + p.kind()
}
