// Command support writes docs/dockerfile-support.md from the conformance cases and the
// results of their last run:
//
//	support -root DIR [-check] RESULTS…
//
// DIR is the root of the repository. Each RESULTS file holds the results of one run. With
// -check, the document is compared and not written. Without RESULTS, support writes the
// tables of docs/environments.md instead (environments.go).
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shale-build/shale/tests/conformance"
)

func main() {
	root := flag.String("root", ".", "the clone")
	check := flag.Bool("check", false, "compare the document instead of writing it")
	flag.Parse()
	if err := run(*root, *check, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "support:", err)
		os.Exit(1)
	}
}

func run(root string, check bool, results []string) error {
	if len(results) == 0 {
		return writeEnvironments(root)
	}
	suite := filepath.Join(root, "tests", "conformance")
	cases, err := conformance.Load(filepath.Join(suite, "cases"))
	if err != nil {
		return err
	}
	scenarios, err := conformance.LoadScenarios(filepath.Join(suite, "scenarios.json"), cases)
	if err != nil {
		return err
	}
	for _, s := range scenarios {
		if len(s.Cases)+len(s.Scripts) == 0 {
			return fmt.Errorf("no case and no script stands for scenario %s", s.ID)
		}
		for _, script := range s.Scripts {
			if _, err := os.Stat(filepath.Join(root, "tests", "scripts", script+".txtar")); err != nil {
				return fmt.Errorf("scenario %s: %w", s.ID, err)
			}
		}
	}
	passed, err := readResults(results)
	if err != nil {
		return err
	}
	document := render(cases, scenarios, passed)
	file := filepath.Join(root, "docs", "dockerfile-support.md")
	if !check {
		return os.WriteFile(file, document, 0o644)
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if !bytes.Equal(old, document) {
		return errors.New("docs/dockerfile-support.md is not what the cases and their results say; run make conformance and commit it")
	}
	return nil
}

// readResults maps the name of each case to true if it passed in all runs that include
// it.
func readResults(files []string) (map[string]bool, error) {
	all := map[string]bool{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var one map[string]bool
		if err := json.Unmarshal(data, &one); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		for name, ok := range one {
			before, known := all[name]
			all[name] = ok && (before || !known)
		}
	}
	return all, nil
}

const head = `# Dockerfile support

<!-- Written by make conformance from tests/conformance. Do not edit. -->

shale embeds BuildKit's Dockerfile front end, so that it accepts what ` + "`docker build`" + ` accepts. That the images come out the same
is shown by the [conformance suite](../tests/conformance/README.md): each case below is built with shale, as an unprivileged user and
as root, and its file tree, config, history, warnings or error compared with what BuildKit v0.34.2 gave.

`

// notes are the parts of the document that do not come from cases.
//
//go:embed notes.txt
var notes string

func render(cases []*conformance.Case, scenarios []*conformance.Scenario, passed map[string]bool) []byte {
	var out bytes.Buffer
	out.WriteString(head)
	same := 0
	for _, c := range cases {
		if passed[c.Name] {
			same++
		}
	}
	fmt.Fprintf(&out, "%d cases, of which %d hold.\n\n", len(cases), same)
	out.WriteString(notes)
	renderDifferences(&out, cases)
	renderCases(&out, cases, passed)
	renderScenarios(&out, scenarios)
	return out.Bytes()
}

func renderDifferences(out *bytes.Buffer, cases []*conformance.Case) {
	out.WriteString("## Where shale does otherwise\n\n")
	none := true
	for _, c := range cases {
		if c.Differs != "" {
			fmt.Fprintf(out, "- %s: %s\n", c.Name, cell(c.Differs))
			none = false
		}
	}
	if none {
		out.WriteString("Nowhere: no case is skipped, expected to fail or compared with a result of shale's own.\n")
	}
}

func renderCases(out *bytes.Buffer, cases []*conformance.Case, passed map[string]bool) {
	out.WriteString("\n## Cases\n")
	group := ""
	for _, c := range cases {
		if c.Group() != group {
			group = c.Group()
			fmt.Fprintf(out, "\n### %s\n\n| Case | What is shown | Result |\n|---|---|---|\n", group)
		}
		result := "**fails**"
		switch {
		case passed[c.Name] && c.Differs != "":
			result = "differs, see above"
		case passed[c.Name]:
			result = "same"
		}
		fmt.Fprintf(out, "| [%s](../tests/conformance/cases/%s) | %s | %s |\n", strings.TrimPrefix(c.Name, group+"/"), c.Name, cell(c.Shows), result)
	}
}

func renderScenarios(out *bytes.Buffer, scenarios []*conformance.Scenario) {
	out.WriteString(`
## Scenarios of other test suites

Which of the cases above, or of the [end-to-end scripts](../tests/scripts), stand for the scenarios of the test suites of BuildKit,
buildah and kaniko.

| Scenario | What it is about | Cases and scripts |
|---|---|---|
`)
	for _, s := range scenarios {
		var by []string
		for _, c := range s.Cases {
			by = append(by, c.Name)
		}
		for _, script := range s.Scripts {
			by = append(by, script+".txtar")
		}
		fmt.Fprintf(out, "| %s | %s | %s |\n", s.ID, cell(s.Name), strings.Join(by, ", "))
	}
}

// cell escapes characters that have a meaning in a table cell.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "<", "&lt;", "_", `\_`).Replace(s)
}
