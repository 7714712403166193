package llb

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Text describes the graph as text: one paragraph per vertex, numbered in order. The text
// is the same in each run. It contains the names of secrets; the values are not part of a
// graph.
func (g *Graph) Text() (string, error) {
	number := make(map[*Vertex]int, len(g.Vertices))
	var b strings.Builder
	for i, v := range g.Vertices {
		number[v] = i
		op, err := opText(v)
		if err != nil {
			return "", fmt.Errorf("describe %q: %w", v.Name, err)
		}
		fmt.Fprintf(&b, "%d %s\n", i, v.Name)
		writeAttributes(&b, v, number)
		fmt.Fprintf(&b, "  %s\n", op)
	}
	if g.Target.Vertex == nil {
		b.WriteString("result: empty\n")
	} else {
		fmt.Fprintf(&b, "result: %s\n", outputText(g.Target, number))
	}
	return b.String(), nil
}

func writeAttributes(b *strings.Builder, v *Vertex, number map[*Vertex]int) {
	if len(v.Inputs) > 0 {
		b.WriteString("  inputs:")
		for _, in := range v.Inputs {
			b.WriteString(" " + outputText(in, number))
		}
		b.WriteString("\n")
	}
	if v.Platform != nil {
		fmt.Fprintf(b, "  platform: %s\n", platforms.FormatAll(*v.Platform))
	}
	if v.Group.Name != "" {
		fmt.Fprintf(b, "  group: %s\n", v.Group.Name)
	}
	if v.IgnoreCache {
		b.WriteString("  no cache\n")
	}
	for _, loc := range v.Locations {
		for _, r := range loc.Ranges {
			fmt.Fprintf(b, "  at %s:%d-%d\n", loc.File.Filename, r.Start.Line, r.End.Line)
		}
	}
}

func outputText(o Output, number map[*Vertex]int) string {
	if o.Index == 0 {
		return fmt.Sprint(number[o.Vertex])
	}
	return fmt.Sprintf("%d[%d]", number[o.Vertex], o.Index)
}

func opText(v *Vertex) (string, error) {
	switch {
	case v.Source != nil:
		return kindText("source", v.Source)
	case v.Exec != nil:
		return kindText("exec", v.Exec)
	case v.File != nil:
		return kindText("file", v.File)
	default:
		return kindText("merge", v.Merge)
	}
}

// kindText reformats the message with encoding/json, because protojson varies its white
// space on purpose.
func kindText(kind string, m proto.Message) (string, error) {
	data, err := protojson.Marshal(m)
	if err != nil {
		return "", err
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, data); err != nil {
		return "", err
	}
	return kind + " " + buf.String(), nil
}
