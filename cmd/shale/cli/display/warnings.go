package display

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"golang.org/x/term"

	"github.com/shale-build/shale/builder/frontend"
)

// printWarnings prints the warnings as docker does: in one line each or, if expand is
// set, in full.
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
	before, after := highlight(w)
	var b bytes.Buffer
	// The error is ignored: if the terminal is closed, it cannot show the error either.
	_, _ = fmt.Fprintf(w, "\n %s%d %s found%s\n%s", before, len(warnings), noun, hint, after)
	for i := range warnings {
		writeWarning(&b, &warnings[i], expand)
	}
	_, _ = Text(w).Write(b.Bytes())
}

// highlight returns the sequences before and after yellow text. Both are empty if w is
// not a terminal or if NO_COLOR is set (no-color.org).
func highlight(w io.Writer) (before, after string) {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || !term.IsTerminal(int(f.Fd())) {
		return "", ""
	}
	return "\x1b[33m", "\x1b[0m"
}

func writeWarning(b *bytes.Buffer, warning *client.VertexWarning, expand bool) {
	fmt.Fprintf(b, " - %s\n", warning.Short)
	if !expand {
		return
	}
	for _, line := range warning.Detail {
		fmt.Fprintf(b, "%s\n", line)
	}
	if warning.URL != "" {
		fmt.Fprintf(b, "More info: %s\n", warning.URL)
	}
	if warning.SourceInfo != nil && warning.Range != nil {
		// A write to a bytes.Buffer does not fail.
		_ = frontend.PrintSource(b, &errdefs.Source{Info: warning.SourceInfo, Ranges: warning.Range})
	}
	b.WriteByte('\n')
}
