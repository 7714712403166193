package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/progress"
)

// decisions is a Sink that records the decision about each step for build --explain. It
// forwards all events to another Sink.
type decisions struct {
	progress.Sink

	mu    sync.Mutex
	order []digest.Digest
	steps map[digest.Digest]progress.Vertex
}

// Vertex implements progress.Sink.
func (d *decisions) Vertex(v progress.Vertex) {
	d.note(v)
	d.Sink.Vertex(v)
}

func (d *decisions) note(v progress.Vertex) {
	if v.Decision == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.steps == nil {
		d.steps = map[digest.Digest]progress.Vertex{}
	}
	if _, ok := d.steps[v.Digest]; !ok {
		d.order = append(d.order, v.Digest)
	}
	d.steps[v.Digest] = v
}

// print writes the decision about each step and its reason, in the order of the
// decisions.
func (d *decisions) print(w io.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var text strings.Builder
	for _, dgst := range d.order {
		v := d.steps[dgst]
		fmt.Fprintf(&text, "%-6s  %s\n        %s\n", strings.ToUpper(v.Decision), v.Name, v.Reason)
	}
	if text.Len() == 0 {
		text.WriteString("No step was built or looked for.\n")
	}
	_, err := io.WriteString(w, "\n"+text.String())
	return err
}
