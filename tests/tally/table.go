package main

import (
	"cmp"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// measured matches a line in which a test reports a duration: "measured NAME 1.5s".
var measured = regexp.MustCompile(`measured (\S+) (\d\S*)$`)

// writeTable prints a row for each test that measured durations, with its result. The
// columns are in the order in which their names first occur.
func (r *results) writeTable(suite string, out io.Writer) error {
	var columns []string
	rows := map[string]map[string]string{}
	var names []string
	for _, o := range r.order {
		for line := range strings.Lines(o.output.String()) {
			m := measured.FindStringSubmatch(strings.TrimSpace(line))
			if m == nil {
				continue
			}
			took, err := time.ParseDuration(m[2])
			if err != nil {
				return fmt.Errorf("read what %s measured: %w", o.test, err)
			}
			if rows[o.test] == nil {
				rows[o.test] = map[string]string{"result": word(o.failed())}
				names = append(names, o.test)
			}
			rows[o.test][m[1]] = strconv.FormatFloat(took.Seconds(), 'f', 2, 64)
			if !slices.Contains(columns, m[1]) {
				columns = append(columns, m[1])
			}
		}
	}
	slices.Sort(names)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s, seconds\t%s\n", suite, strings.Join(append(columns, "result"), "\t"))
	for _, name := range names {
		fmt.Fprint(w, path.Base(name))
		for _, column := range append(columns, "result") {
			fmt.Fprintf(w, "\t%s", cmp.Or(rows[name][column], "-"))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

func word(failed bool) string {
	if failed {
		return "FAIL"
	}
	return "ok"
}
