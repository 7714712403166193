package frontend

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
)

// Call is a report about a Dockerfile.
type Call struct {
	// Name is CallCheck, CallOutline or CallTargets.
	Name string
	// JSON is the report for machines.
	JSON []byte
	// Status is the exit status the report asks for: 1 when a check has
	// findings.
	Status int
}

func readCall(out *Result, res *client.Result, name string) error {
	if res == nil {
		return errors.New("the front end gave no report")
	}
	out.Metadata = res.Metadata
	out.Call = &Call{Name: name, JSON: res.Metadata["result.json"]}
	if code := res.Metadata["result.statuscode"]; len(code) > 0 {
		var err error
		if out.Call.Status, err = strconv.Atoi(string(code)); err != nil {
			return fmt.Errorf("decode the report's status: %w", err)
		}
	}
	return nil
}

// Print writes the report for people.
func (c *Call) Print(w io.Writer) error {
	switch c.Name {
	case CallOutline:
		return outline.PrintOutline(c.JSON, w)
	case CallTargets:
		return targets.PrintTargets(c.JSON, w)
	default:
		return c.printCheck(w)
	}
}

func (c *Call) printCheck(w io.Writer) error {
	var results lint.LintResults
	if err := json.Unmarshal(c.JSON, &results); err != nil {
		return fmt.Errorf("decode lint report: %w", err)
	}
	if len(results.Warnings) == 0 && results.Error == nil {
		_, err := fmt.Fprintln(w, "Check complete, no warnings found.")
		return err
	}
	if n := len(results.Warnings); n > 0 {
		noun := "warnings have"
		if n == 1 {
			noun = "warning has"
		}
		if _, err := fmt.Fprintf(w, "Check complete, %d %s been found!\n", n, noun); err != nil {
			return err
		}
	}
	if err := lint.PrintLintViolations(c.JSON, w, nil); err != nil {
		return err
	}
	results.PrintErrorTo(w, nil)
	return nil
}
