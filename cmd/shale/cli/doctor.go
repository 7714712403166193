package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/format"
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/storage/registry"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "Check whether this machine can build, and print remedies",
		Description: `Every probe tries the thing itself, and a small image is built where images are
built, offline, and removed again. The first line says whether you can build; the
exit code is 0 only then.`,
		Flags: []cli.Flag{formatFlag("print with `FORMAT`: table, json or a Go template")},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			d := diagnose(c)
			if err := writeDiagnosis(c, d); err != nil {
				return err
			}
			if !d.CanBuild {
				return toldError{fmt.Errorf("environment %s: %s", d.Environment, d.Verdict)}
			}
			return nil
		},
	}
}

// diagnosis is the output of doctor.
type diagnosis struct {
	// CanBuild reports whether an image can be built. Verdict is the same in words.
	CanBuild bool
	Verdict  string
	// Environment is one of the letters in docs/environments.md.
	Environment string
	Explanation string
	Probes      []probe.Result
}

// diagnose runs all probes.
func diagnose(c *cli.Context) diagnosis {
	results := probe.Run(c.Context)
	letter, explanation := probe.Mode(results)
	d := diagnosis{Environment: string(letter), Explanation: explanation, Probes: results}
	reason := explanation
	d.CanBuild = !probe.Hopeless(results)
	// In place, a trial step would move the container's own files.
	if d.CanBuild && letter != 'D' {
		report := trialStep(c.Context, c)
		d.Probes = append(d.Probes, report.results()...)
		d.Probes = append(d.Probes, podmanResult(c.Context, report.GraphRoot, c.String(rootFlag) != "")...)
		d.CanBuild, reason = report.Step == "", report.Step
	}
	d.Probes = append(d.Probes, networkResults(c.Context, registry.New(nil, registryOptions(c, nil)), os.LookupEnv)...)
	fixes := 0
	for _, r := range d.Probes {
		if r.Fix != "" {
			fixes++
		}
	}
	d.Verdict = verdict(d.CanBuild, reason, fixes)
	return d
}

// verdict returns the first line of doctor's output.
func verdict(canBuild bool, reason string, fixes int) string {
	switch {
	case !canBuild:
		return "You cannot build: " + reason
	case fixes == 0:
		return "You can build."
	case fixes == 1:
		return "You can build. One thing is missing, which is optional."
	case fixes == 2:
		return "You can build. Two things are missing, both optional."
	}
	return fmt.Sprintf("You can build. %d things are missing, all optional.", fixes)
}

var probesListing = format.Listing{
	Columns: "{{.Name}}\t{{.Status}}\t{{.Detail}}",
	Headers: format.Headers{"Name": "PROBE", "Status": "STATUS", "Detail": "DETAIL", "Fix": "FIX"},
}

func writeDiagnosis(c *cli.Context, d diagnosis) error {
	w := c.App.Writer
	if chosen := c.String("format"); chosen == "json" {
		return format.IndentedJSON(w, d)
	} else if chosen != "" && chosen != "table" {
		return format.Write(w, probesListing, chosen, d.Probes)
	}
	if _, err := fmt.Fprintf(w, "%s\n\n", d.Verdict); err != nil {
		return err
	}
	if err := format.Write(w, probesListing, "", d.Probes); err != nil {
		return err
	}
	if err := writeFixes(w, d.Probes); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nEnvironment %s: %s\n", d.Environment, d.Explanation)
	return err
}

// writeFixes prints the list of things that the user should do.
func writeFixes(w io.Writer, results []probe.Result) error {
	var fixes []string
	for _, r := range results {
		if r.Fix != "" {
			fixes = append(fixes, r.Name+": "+r.Fix)
		}
	}
	if len(fixes) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(w, "\nTo do:"); err != nil {
		return err
	}
	return printEach(w, "  - ", fixes)
}
