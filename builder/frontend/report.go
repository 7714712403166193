package frontend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
)

// PrintError writes the error of a failed build in the format of docker buildx: the lines
// of the Dockerfile that the error is about, then one line that begins with "ERROR:".
func PrintError(w io.Writer, err error) error {
	if err == nil {
		return nil
	}
	var buf bytes.Buffer
	for _, src := range errdefs.Sources(err) {
		if perr := PrintSource(&buf, src); perr != nil {
			return perr
		}
	}
	prefix := "failed to build: failed to solve: "
	if _, ok := errors.AsType[*InputError](err); ok {
		prefix = "failed to build: "
	}
	fmt.Fprintf(&buf, "ERROR: %s%s\n", prefix, printable(err.Error()))
	_, werr := w.Write(buf.Bytes())
	return werr
}

// PrintSource writes the lines of a source that src marks, with the lines around them.
func PrintSource(w io.Writer, src *errdefs.Source) error {
	if src.Info == nil {
		return nil
	}
	var ranges []*pb.Range
	for _, r := range src.Ranges {
		if r.GetStart() != nil && r.GetEnd() != nil {
			ranges = append(ranges, r)
		}
	}
	safe := errdefs.Source{
		Info: &pb.SourceInfo{
			Filename: printable(src.Info.Filename),
			Data:     []byte(printable(string(src.Info.Data))),
		},
		Ranges: ranges,
	}
	return safe.Print(w)
}

// printable replaces control characters. A Dockerfile from an untrusted source could use
// them to move the cursor or to set the title of the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && r != '\t' && unicode.IsControl(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
