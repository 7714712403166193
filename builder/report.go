package builder

import (
	"context"
	"encoding/json"
	"errors"
	"os"

	"github.com/shale-build/shale/builder/frontend"
)

// ReportsAlone reports whether Report can make the report that opts request. A report
// about the Dockerfile alone needs no image and therefore no store.
func ReportsAlone(opts Options) bool {
	if opts.Call != frontend.CallTargets && opts.Call != frontend.CallDescribe {
		return false
	}
	// Standard input can be read only once, and remote contexts need the store.
	info, err := os.Stat(opts.Context)
	return err == nil && info.IsDir()
}

// Report makes a report about a Dockerfile. Of deps it uses only Progress.
func Report(ctx context.Context, opts Options, deps Deps) (_ *Result, err error) {
	in, err := frontend.Open(ctx, opts.Options)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	res, err := frontend.Build(ctx, in, frontend.Services{Progress: deps.Progress})
	if err != nil {
		return nil, err
	}
	return reported(res), nil
}

// reported returns the result of a build that only makes a report.
func reported(res *frontend.Result) *Result {
	metadata := map[string]any{}
	for key, value := range res.Metadata {
		metadata[key] = string(value)
		if key == "result.json" && json.Valid(value) {
			metadata[key] = json.RawMessage(value)
		}
	}
	return &Result{Metadata: metadata, Call: res.Call}
}
