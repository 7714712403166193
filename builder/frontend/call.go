package frontend

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"

	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/pb"
)

// Call is a report about a Dockerfile.
type Call struct {
	// Name is the value of Options.Call.
	Name string
	// Results are the parts of the report from the front end: result.json, and result.txt
	// if the report has one.
	Results map[string][]byte
	// Status is the exit status that the report asks for: 1 if a check has findings.
	Status int

	// shown is the path of the Dockerfile as the user knows it.
	shown string
	lint  *lint.LintResults
}

func readCall(out *Result, res *client.Result, in *Inputs) error {
	if res == nil {
		return errors.New("the front end gave no report")
	}
	out.Metadata = res.Metadata
	out.Call = &Call{Name: in.call, Results: res.Metadata, shown: in.shown}
	if code := res.Metadata["result.statuscode"]; len(code) > 0 {
		var err error
		if out.Call.Status, err = strconv.Atoi(string(code)); err != nil {
			return fmt.Errorf("decode the report's status: %w", err)
		}
	}
	if in.call == CallCheck {
		out.Call.lint = &lint.LintResults{}
		if err := json.Unmarshal(res.Metadata["result.json"], out.Call.lint); err != nil {
			return fmt.Errorf("decode lint report: %w", err)
		}
	}
	return nil
}

// Print writes the report in the format of docker buildx: as text, or as JSON if asJSON
// is set. The text of a check does not contain an error in the Dockerfile; Failure
// returns that.
func (c *Call) Print(w io.Writer, asJSON bool) error {
	if asJSON {
		_, err := fmt.Fprintf(w, "%s\n", c.Results["result.json"])
		return err
	}
	var buf bytes.Buffer
	if err := c.text(&buf); err != nil {
		return err
	}
	_, err := io.WriteString(w, printable(buf.String()))
	return err
}

func (c *Call) text(w *bytes.Buffer) error {
	report := c.Results["result.json"]
	switch c.Name {
	case CallCheck:
		return c.checkText(w)
	case CallOutline:
		return outline.PrintOutline(report, w)
	case CallTargets:
		return targets.PrintTargets(report, w)
	case CallDescribe:
		return subrequests.PrintDescribe(report, w)
	}
	if text, ok := c.Results["result.txt"]; ok {
		w.Write(text)
		return nil
	}
	fmt.Fprintf(w, "%s\n", report)
	return nil
}

func (c *Call) checkText(w *bytes.Buffer) error {
	n := len(c.lint.Warnings)
	switch {
	case n == 0 && c.lint.Error == nil:
		w.WriteString("Check complete, no warnings found.\n")
	case n == 1:
		w.WriteString("Check complete, 1 warning has been found!\n")
	case n > 1:
		fmt.Fprintf(w, "Check complete, %d warnings have been found!\n", n)
	}
	if err := c.lint.PrintTo(w, c.rename); err != nil {
		return err
	}
	if n > 0 && c.lint.Error != nil {
		w.WriteByte('\n')
	}
	return nil
}

// Failure returns the error in the Dockerfile that a check found, with its position. It
// returns "" if there is none.
func (c *Call) Failure() string {
	if c.lint == nil || c.lint.Error == nil {
		return ""
	}
	var buf bytes.Buffer
	c.lint.PrintErrorTo(&buf, c.rename)
	return printable(buf.String())
}

// rename replaces the front end's name of the Dockerfile with the path that the user
// knows.
func (c *Call) rename(info *pb.SourceInfo) *pb.SourceInfo {
	if info == nil || c.shown == "" {
		return info
	}
	info = info.CloneVT()
	info.Filename = c.shown
	return info
}

// shownPath returns the path of the Dockerfile for reports: the path that the user gave,
// or the path where the Dockerfile was found.
func shownPath(o Options, filename string) string {
	switch {
	case o.Dockerfile == "-":
		return "stdin"
	case o.Dockerfile != "":
		return o.Dockerfile
	case o.Context == "-":
		return filename
	default:
		return filepath.Join(o.Context, filename)
	}
}
