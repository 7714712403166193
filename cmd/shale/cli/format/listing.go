package format

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Headers maps the fields of a row to their headings.
type Headers map[string]string

// Listing describes the output of a command that lists rows of one type.
type Listing struct {
	// Columns is the default table: fields separated by tabs, for example
	// "{{.ID}}\t{{.Size}}".
	Columns string
	Headers Headers
}

// Write writes rows in the format that --format selects. If format is "" or "table", it
// writes the default table. If it is "table TEMPLATE", the table has other columns. If
// it is "json", Write writes one JSON object per line. Any other format is a template
// that is applied to every row. Write returns an error if the template is not valid.
func Write[Row any](w io.Writer, l Listing, format string, rows []Row) error {
	if format == "json" {
		return writeLines(w, rows)
	}
	columns, isTable := l.columns(format)
	t, err := Parse(columns)
	if err != nil {
		return err
	}
	if !isTable {
		for _, row := range rows {
			if err := Execute(w, t, row); err != nil {
				return err
			}
		}
		return nil
	}
	var table bytes.Buffer
	aligned := tabwriter.NewWriter(&table, 10, 1, 3, ' ', 0)
	if err := Execute(aligned, t, l.Headers); err != nil {
		return err
	}
	for _, row := range rows {
		if err := Execute(aligned, t, row); err != nil {
			return err
		}
	}
	if err := aligned.Flush(); err != nil {
		return fmt.Errorf("align table: %w", err)
	}
	if _, err := w.Write(table.Bytes()); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

func (l Listing) columns(format string) (columns string, isTable bool) {
	if format == "" || format == "table" {
		return l.Columns, true
	}
	if rest, ok := strings.CutPrefix(format, "table "); ok {
		return strings.TrimSpace(rest), true
	}
	return format, false
}

func writeLines[Row any](w io.Writer, rows []Row) error {
	for _, row := range rows {
		line, err := JSON(row)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
	}
	return nil
}
