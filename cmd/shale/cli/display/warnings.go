package display

import (
	"bytes"
	"fmt"
	"io"

	"github.com/moby/buildkit/client"
)

// excerptContext is how many lines are shown around a finding.
const excerptContext = 2

// printWarnings lists the findings in the form docker prints them in, one line
// each, or in full.
func printWarnings(w io.Writer, warnings []client.VertexWarning, expand bool) {
	if len(warnings) == 0 {
		return
	}
	noun := "warnings"
	if len(warnings) == 1 {
		noun = "warning"
	}
	hint := " (use --debug to expand):"
	if expand {
		hint = ":"
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "\n %d %s found%s\n", len(warnings), noun, hint)
	for i := range warnings {
		writeWarning(&b, &warnings[i], expand)
	}
	// A terminal that is gone cannot be told so.
	_, _ = w.Write(b.Bytes())
}

func writeWarning(b *bytes.Buffer, warning *client.VertexWarning, expand bool) {
	fmt.Fprintf(b, " - %s", warning.Short)
	if len(warning.Range) > 0 && warning.Range[0].GetStart() != nil {
		fmt.Fprintf(b, " (line %d)", warning.Range[0].GetStart().GetLine())
	}
	b.WriteByte('\n')
	if !expand {
		return
	}
	for _, line := range warning.Detail {
		fmt.Fprintf(b, "%s\n", line)
	}
	if warning.URL != "" {
		fmt.Fprintf(b, "More info: %s\n", warning.URL)
	}
	writeExcerpt(b, warning)
	b.WriteByte('\n')
}

// writeExcerpt shows the lines of the finding, marked, among their neighbours.
func writeExcerpt(b *bytes.Buffer, warning *client.VertexWarning) {
	if warning.SourceInfo == nil || len(warning.Range) == 0 || warning.Range[0].GetStart() == nil {
		return
	}
	start, end := int(warning.Range[0].GetStart().GetLine()), int(warning.Range[0].GetEnd().GetLine())
	end = max(start, end)
	lines := bytes.Split(bytes.TrimRight(warning.SourceInfo.GetData(), "\n"), []byte("\n"))
	if start < 1 || start > len(lines) {
		return
	}
	fmt.Fprintf(b, "%s:%d\n--------------------\n", warning.SourceInfo.GetFilename(), start)
	for n := max(1, start-excerptContext); n <= min(len(lines), end+excerptContext); n++ {
		mark := "   "
		if n >= start && n <= end {
			mark = ">>>"
		}
		fmt.Fprintf(b, " %3d | %s %s\n", n, mark, lines[n-1])
	}
	b.WriteString("--------------------\n")
}
