package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/format"
	"github.com/shale-build/shale/runtime/probe"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:        "doctor",
		Usage:       "Find out what this machine lets shale do, and how to mend what it does not",
		Description: "Every probe tries the thing itself; what it finds decides how builds run steps. The exit code is 0 when images can be built.",
		Flags:       []cli.Flag{formatFlag("print with `FORMAT`: table, json or a Go template")},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			results := probe.Run(c.Context)
			letter, explanation := probe.Mode(results)
			// In place, nothing is mounted.
			hopeless := probe.Hopeless(results)
			if !hopeless && letter != 'D' {
				results = append(results, probeOverlay(c.Context, c))
			}
			d := diagnosis{Environment: string(letter), Explanation: explanation, Probes: results}
			if err := writeDiagnosis(c, d); err != nil {
				return err
			}
			if hopeless {
				return toldError{fmt.Errorf("environment %s: %s", d.Environment, d.Explanation)}
			}
			return nil
		},
	}
}

// diagnosis is what doctor prints.
type diagnosis struct {
	Environment string
	Explanation string
	Probes      []probe.Result
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
	if err := format.Write(w, probesListing, "", d.Probes); err != nil {
		return err
	}
	var fixes []string
	for _, r := range d.Probes {
		if r.Fix != "" {
			fixes = append(fixes, r.Name+": "+r.Fix)
		}
	}
	if len(fixes) > 0 {
		if _, err := fmt.Fprintln(w, "\nTo do:"); err != nil {
			return err
		}
		if err := printEach(w, "  - ", fixes); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\nEnvironment %s: %s\n", d.Environment, d.Explanation)
	return err
}
