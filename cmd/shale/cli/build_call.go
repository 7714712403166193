package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder/frontend"
)

// callOptions holds the parsed value of --call.
type callOptions struct {
	// name is the name of the report, or "" for a build.
	name string
	json bool
	// ignoreStatus makes the command succeed if a check has findings.
	ignoreStatus bool
}

// callValue returns the report that --call, --check or --print, the former name of
// --call, requests. It returns an error if --check and --call request different
// reports.
func callValue(c *cli.Context) (callOptions, error) {
	value := c.String("call")
	if !c.IsSet("call") && c.IsSet("print") {
		value = c.String("print")
	}
	call, err := parseCall(value)
	if err != nil || !c.Bool("check") {
		return call, err
	}
	if call.name != "" && call.name != frontend.CallCheck {
		return call, fmt.Errorf("--check and --call=%s ask for two reports", call.name)
	}
	call.name = frontend.CallCheck
	return call, nil
}

// parseCall parses NAME[,format=FORMAT][,ignorestatus=BOOL]. It accepts any name,
// because the front end checks whether it has such a report.
func parseCall(value string) (callOptions, error) {
	var call callOptions
	if value == "" {
		return call, nil
	}
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return call, fmt.Errorf("invalid --call %q: %w", value, err)
	}
	for _, field := range fields {
		key, v, found := strings.Cut(field, "=")
		switch {
		case !found && call.name != "":
			return call, fmt.Errorf("invalid --call %q: it names two reports", value)
		case !found:
			call.name = field
		case key == "format":
			call.json = v == "json"
		case key == "ignorestatus":
			if call.ignoreStatus, err = strconv.ParseBool(v); err != nil {
				return call, fmt.Errorf("invalid --call %q: ignorestatus is true or false", value)
			}
		default:
			return call, fmt.Errorf("invalid --call %q: %q is unknown: use format or ignorestatus", value, key)
		}
	}
	switch call.name {
	case "lint":
		call.name = frontend.CallCheck
	case "build":
		call.name = ""
	}
	return call, nil
}

// printCall prints a report. It returns a statusError if the report failed. It also
// returns one if a check has findings and o.ignoreStatus is not set.
func printCall(c *cli.Context, call *frontend.Call, o callOptions) error {
	if err := call.Print(c.App.Writer, o.json); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	if failure := call.Failure(); failure != "" {
		_, _ = fmt.Fprintf(c.App.ErrWriter, "ERROR: %s\n", failure)
		return statusError(1)
	}
	if call.Status != 0 && !o.ignoreStatus {
		return statusError(call.Status)
	}
	return nil
}
