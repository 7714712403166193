package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/shale-build/shale/tests/conformance"
)

// table matches a table of docs/environments.md and the line before it. That line names
// the environments that the table is about.
var table = regexp.MustCompile(`(?m)^<!-- cases of ([a-z -]+), by tests/conformance/support -->\n(?:\|.*\n)*`)

// writeEnvironments updates the tables of docs/environments.md.
func writeEnvironments(root string) error {
	file := filepath.Join(root, "docs", "environments.md")
	document, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	differences, err := conformance.LoadDifferences()
	if err != nil {
		return err
	}
	return os.WriteFile(file, renderTables(document, differences), 0o644)
}

// renderTables returns the document with its tables replaced by ones of the differences.
func renderTables(document []byte, differences []conformance.Difference) []byte {
	return table.ReplaceAllFunc(document, func(old []byte) []byte {
		var out bytes.Buffer
		first, _, _ := bytes.Cut(old, []byte("\n"))
		fmt.Fprintf(&out, "%s\n| Case | Why |\n|---|---|\n", first)
		for _, d := range differences {
			if slices.ContainsFunc(strings.Fields(string(table.FindSubmatch(old)[1])), func(e string) bool { return slices.Contains(d.Environments, e) }) {
				fmt.Fprintf(&out, "| %s | %s |\n", strings.Join(d.Cases, ", "), strings.ReplaceAll(d.Why, "|", `\|`))
			}
		}
		return out.Bytes()
	})
}
