package frontend

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	commonexptypes "github.com/moby/buildkit/exporter/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"

	"github.com/shale-build/shale/builder/llb"
)

// Build runs the front end on in. An error about the Dockerfile carries its position in
// the file: errdefs.Sources returns it and PrintError prints it. If Build fails, the
// Result holds only the lint findings so far. Build may be called several times with the
// same Inputs.
func Build(ctx context.Context, in *Inputs, svc Services) (_ *Result, err error) {
	g, err := newGateway(in, svc)
	if err != nil {
		return &Result{}, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if in.rego != "" {
		g.warnings.rego(in.rego)
	}
	res, err := runFrontend(ctx, g, in.patience)
	if errors.Is(err, errPanic) && in.call == CallTargets {
		res, err = listTargets(g.args.file())
	}
	out := &Result{Warnings: g.warnings.list()}
	if err != nil {
		return out, explain(err, in)
	}
	if in.call != "" {
		return out, readCall(out, res, in)
	}
	out.UnusedArgs = g.args.unused(in.buildArgs)
	return out, readResult(out, res)
}

// explain turns err into an InputError if a fetched or unpacked context has no
// Dockerfile, because the user can correct that. For a local context, Open returns such
// an error.
func explain(err error, in *Inputs) error {
	missing := in.remote && errors.Is(err, fs.ErrNotExist) && strings.Contains(err.Error(), "failed to read dockerfile")
	if !missing {
		return err
	}
	return &InputError{Err: err}
}

func readResult(out *Result, res *client.Result) error {
	var list exptypes.Platforms
	if err := json.Unmarshal(res.Metadata[exptypes.ExporterPlatformsKey], &list); err != nil {
		return fmt.Errorf("decode the front end's platforms: %w", err)
	}
	out.Metadata = res.Metadata
	out.MultiPlatform = res.Refs != nil
	for _, p := range list.Platforms {
		platform, err := readPlatform(res, p)
		if err != nil && len(list.Platforms) > 1 {
			return fmt.Errorf("platform %s: %w", p.ID, err)
		}
		if err != nil {
			return err
		}
		out.Platforms = append(out.Platforms, platform)
		if out.Epoch == nil {
			out.Epoch = platform.Epoch
		}
	}
	return nil
}

func readPlatform(res *client.Result, p exptypes.Platform) (Platform, error) {
	suffix, clientRef := "", res.Ref
	if res.Refs != nil {
		suffix, clientRef = "/"+p.ID, res.Refs[p.ID]
	}
	out := Platform{
		ID:         p.ID,
		Platform:   p.Platform,
		Config:     res.Metadata[exptypes.ExporterImageConfigKey+suffix],
		BaseConfig: res.Metadata[exptypes.ExporterImageBaseConfigKey+suffix],
	}
	var err error
	if out.Epoch, err = readEpoch(res.Metadata[commonexptypes.ExporterEpochKey+suffix]); err != nil {
		return Platform{}, err
	}
	if out.Graph, err = graphOf(clientRef); err != nil {
		return Platform{}, err
	}
	return out, nil
}

func readEpoch(value []byte) (*time.Time, error) {
	if len(value) == 0 {
		return nil, nil
	}
	sec, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("decode the source date epoch: %w", err)
	}
	t := time.Unix(sec, 0).UTC()
	return &t, nil
}

// graphOf returns the graph of a reference that gateway.Solve made. A nil reference is an
// empty result.
func graphOf(r client.Reference) (*llb.Graph, error) {
	switch r := r.(type) {
	case nil:
		return &llb.Graph{}, nil
	case *ref:
		return llb.Decode(r.def)
	default:
		return nil, fmt.Errorf("the front end returned a foreign reference %T", r)
	}
}
