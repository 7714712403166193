package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/shale-build/shale/tests/kernels/plan"
)

// table matches the results table of docs/environments.md and the marker line before it.
var table = regexp.MustCompile(`(?m)^<!-- results of make kernels, by tests/kernels -->\n(?:\n|\|.*\n)*`)

// groups are the columns of the table. Each is the first part of a case's name.
var groups = []string{"check", "store", "conformance", "digests", "scenarios"}

// environmentLetters are the letters of the environments in docs/environments.md.
var environmentLetters = map[string]string{
	"user": "A, user", "root": "A, root", "oneid": "B", "unshare": "C", "docker": "D",
}

// writeTable replaces the table of a document.
func writeTable(document, results string) error {
	old, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	made, err := renderTable(old, results)
	if err != nil {
		return err
	}
	return os.WriteFile(document, made, 0o644)
}

// renderTable returns the document with its table replaced by one of the results in dir.
// It returns an error if the document has no marker line.
func renderTable(document []byte, dir string) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("<!-- results of make kernels, by tests/kernels -->\n| Linux | Security module | Environment |")
	for _, g := range groups {
		fmt.Fprintf(&out, " %s |", g)
	}
	out.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(groups)) + "\n")
	var failures bytes.Buffer
	for _, m := range machines {
		results, err := readResults(filepath.Join(dir, m.name+".tsv"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		m.rows(&out, results)
		m.failures(&failures, results)
	}
	if failures.Len() > 0 {
		fmt.Fprintf(&out, "\n| Linux | Environment | Fails | Why |\n|---|---|---|---|\n%s", failures.String())
	}
	out.WriteString("\n")
	if !table.Match(document) {
		return nil, errors.New("the document has no line \"results of make kernels\"")
	}
	return table.ReplaceAllLiteral(document, out.Bytes()), nil
}

// title returns the text of the machine's first column.
func (m machine) title() string {
	version, _, _ := strings.Cut(m.name, "-")
	if m.arch != "amd64" {
		version += " (" + m.arch + ")"
	}
	return version
}

// rows writes a row for each environment: the number of cases of each group that pass.
func (m machine) rows(out *bytes.Buffer, results []plan.Result) {
	for _, environment := range []string{"user", "oneid", "root", "unshare", "docker"} {
		var cells []string
		some := false
		for _, group := range groups {
			held, all := 0, 0
			for _, r := range results {
				if r.Environment == environment && strings.HasPrefix(r.Case, group+"/") {
					all++
					if r.Passed {
						held++
					}
				}
			}
			cell := "—"
			if all > 0 {
				cell, some = fmt.Sprintf("%d of %d", held, all), true
			}
			cells = append(cells, cell)
		}
		if some {
			fmt.Fprintf(out, "| %s | %s | %s | %s |\n", m.title(), m.module, environmentLetters[environment], strings.Join(cells, " | "))
		}
	}
}

// failures writes the cases that fail. Cases with the same reason and environment share a
// row.
func (m machine) failures(out *bytes.Buffer, results []plan.Result) {
	type row struct{ environment, why string }
	var order []row
	cases := map[row][]string{}
	for _, r := range results {
		if r.Passed {
			continue
		}
		key := row{environmentLetters[r.Environment], r.Why}
		if !slices.Contains(order, key) {
			order = append(order, key)
		}
		cases[key] = append(cases[key], r.Case)
	}
	for _, key := range order {
		why := strings.NewReplacer("|", `\|`, "<", "&lt;").Replace(key.why)
		fmt.Fprintf(out, "| %s, %s | %s | %s | %s |\n", m.title(), m.module, key.environment, strings.Join(cases[key], ", "), why)
	}
}
