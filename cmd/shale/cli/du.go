package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/cmd/shale/cli/format"
)

func builderDuCommand() *cli.Command {
	return &cli.Command{
		Name:  "du",
		Usage: "Show the disk space that the build cache uses",
		Flags: []cli.Flag{
			filterFlag("only what matches: until=TIME|DURATION, type=regular, exec.cachemount or source, id=ID"),
			formatFlag("print with `FORMAT`: table, json or a Go template"),
			&cli.BoolFlag{Name: "verbose", Usage: "show all that is known of each entry"},
			&cli.StringFlag{Name: "builder", Hidden: true},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			// Cache mounts must be included, so all is set.
			opts := pruneOptions{all: true}
			now := time.Now()
			for _, f := range c.StringSlice("filter") {
				if err := opts.filter(f, now); err != nil {
					return usageError(c, err.Error())
				}
			}
			return withStore(c, func(s *session) error {
				built, err := openCache(s.store)
				if err != nil {
					return err
				}
				rows, err := duRows(built, opts, now)
				if err != nil {
					return err
				}
				return writeDu(c.App.Writer, rows, c.String("format"), c.Bool("verbose"))
			})
		},
	}
}

// duRow describes one entry of the build cache. Its fields have the names of buildx.
type duRow struct {
	ID          string
	Parents     string
	CreatedAt   string
	Mutable     string
	Reclaimable string
	Shared      string
	Size        string
	Description string
	LastUsedAt  string
	Type        string

	bytes  int64
	used   time.Time
	shared bool
	inUse  bool
}

var duListing = format.Listing{
	Columns: "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}",
	Headers: format.Headers{
		"ID": "ID", "Parents": "PARENTS", "CreatedAt": "CREATED AT", "Mutable": "MUTABLE", "Reclaimable": "RECLAIMABLE",
		"Shared": "SHARED", "Size": "SIZE", "Description": "DESCRIPTION", "LastUsedAt": "LAST ACCESSED", "Type": "TYPE",
	},
}

// duRows returns the entries that opts select, most recently used first.
func duRows(built buildCache, opts pruneOptions, now time.Time) ([]duRow, error) {
	rows := []duRow{}
	add := func(r duRow) {
		if usedBefore(r.used, opts.until) {
			r.Size, r.LastUsedAt = humanSize(r.bytes), ago(r.used, now)
			r.Reclaimable, r.Shared = strconv.FormatBool(!r.inUse), strconv.FormatBool(r.shared)
			rows = append(rows, r)
		}
	}
	steps, err := built.Steps()
	if err != nil {
		return nil, err
	}
	for _, u := range steps {
		if opts.takes(typeStep) && opts.named(u.Layer) {
			add(duRow{
				ID: shortID(u.Layer), Parents: shortID(u.Parent), CreatedAt: timestamp(u.Created), Mutable: "false",
				Description: u.Description, Type: typeStep, bytes: max(0, u.Size), used: u.Used, shared: u.Shared,
			})
		}
	}
	sources, err := built.Sources()
	if err != nil {
		return nil, err
	}
	for _, u := range sources {
		if opts.takes(typeSource) && opts.named(u.Name) {
			add(duRow{ID: shortID(u.Name), Mutable: "true", Description: "what was fetched", Type: typeSource, bytes: u.Size, used: u.Used})
		}
	}
	mounts, err := built.Mounts()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if opts.takes(typeMount) && opts.namesMount(m) {
			add(duMount(m))
		}
	}
	slices.SortStableFunc(rows, func(a, b duRow) int { return b.used.Compare(a.used) })
	return rows, nil
}

func duMount(m cachemount.Mount) duRow {
	return duRow{
		ID: shortID(string(m.Key)), Mutable: "true", Description: "cache mount " + mountTitle(m), Type: typeMount,
		bytes: m.Size, used: m.Used, inUse: m.InUse,
	}
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.999999999 -0700 MST")
}

// writeDu prints the rows and, unless the user chose a format, their sums. In the
// table, a star after the ID marks an entry that can change. A star after the size
// marks an entry on which other entries build.
func writeDu(w io.Writer, rows []duRow, chosen string, verbose bool) error {
	if chosen != "" && chosen != "table" {
		return format.Write(w, duListing, chosen, rows)
	}
	if verbose {
		for _, r := range rows {
			if err := writeEntry(w, r); err != nil {
				return err
			}
		}
	} else {
		marked := slices.Clone(rows)
		for i, r := range rows {
			if r.Mutable == "true" {
				marked[i].ID += "*"
			}
			if r.shared {
				marked[i].Size += "*"
			}
		}
		if err := format.Write(w, duListing, chosen, marked); err != nil {
			return err
		}
	}
	var shared, reclaimable, total int64
	for _, r := range rows {
		total += r.bytes
		if r.shared {
			shared += r.bytes
		}
		if !r.inUse {
			reclaimable += r.bytes
		}
	}
	if shared > 0 {
		if _, err := fmt.Fprintf(w, "Shared:\t\t%s\nPrivate:\t%s\n", humanSize(shared), humanSize(total-shared)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "Reclaimable:\t%s\nTotal:\t\t%s\n", humanSize(reclaimable), humanSize(total))
	return err
}

func writeEntry(w io.Writer, r duRow) error {
	for _, line := range []struct{ label, value string }{
		{"ID", r.ID},
		{"Parent", r.Parents},
		{"Created at", r.CreatedAt},
		{"Mutable", r.Mutable},
		{"Reclaimable", r.Reclaimable},
		{"Shared", r.Shared},
		{"Size", r.Size},
		{"Description", format.Ellipsis(r.Description, 200)},
		{"Last used", r.LastUsedAt},
		{"Type", r.Type},
	} {
		if line.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%-13s %s\n", line.label+":", line.value); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}
