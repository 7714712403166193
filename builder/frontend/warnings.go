package frontend

import (
	"bytes"
	"slices"
	"sync"

	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/progress"
)

// warnings collects lint findings. The report of a check contains its findings itself.
type warnings struct {
	sink progress.Sink

	mu  sync.Mutex
	all []progress.Warning
}

func (w *warnings) add(dgst digest.Digest, msg string, opts client.WarnOpts) {
	warning := progress.Warning{
		Vertex: dgst,
		Level:  opts.Level,
		Short:  printable(msg),
		URL:    opts.URL,
		File:   opts.SourceInfo.GetFilename(),
		Source: bytes.Clone(opts.SourceInfo.GetData()),
	}
	for _, d := range opts.Detail {
		warning.Detail = append(warning.Detail, printable(string(d)))
	}
	for _, r := range opts.Range {
		start := int(r.GetStart().GetLine())
		warning.Ranges = append(warning.Ranges, progress.Position{
			Line:    start,
			EndLine: max(start, int(r.GetEnd().GetLine())),
		})
	}
	w.mu.Lock()
	w.all = append(w.all, warning)
	w.mu.Unlock()
	w.sink.Warning(warning)
}

// rego adds a warning that a policy is not evaluated, because its author may rely on the
// policy.
func (w *warnings) rego(name string) {
	step := startStep(w.sink, "[internal] policy "+name)
	step.done(nil)
	w.add(step.v.Digest, "PolicyNotEvaluated: "+name+" has no effect: Rego policies are not evaluated, --source-policy-file takes BuildKit's own kind", client.WarnOpts{Level: 1})
}

func (w *warnings) list() []progress.Warning {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.all)
}
