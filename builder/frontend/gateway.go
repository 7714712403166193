package frontend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	buildkitllb "github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/progress"
)

// sessionID is written into every local source. It is fixed because a graph
// without one gets random values and so other digests at every run.
const sessionID = "shale"

// gateway answers what the front end asks while it converts a Dockerfile.
// Nested front ends (# syntax=) get a copy with options of their own.
type gateway struct {
	in       *Inputs
	svc      Services
	platform ocispec.Platform
	// opts is private to one run of the front end, which writes to it.
	opts map[string]string

	roots    *roots
	warnings *warnings
	args     *declared
	names    *spellings
	activity *activity
	// abandoned is set when nobody waits for the front end any more.
	abandoned bool
}

var _ client.Client = (*gateway)(nil)

func newGateway(in *Inputs, svc Services) (*gateway, error) {
	if svc.Progress == nil {
		svc.Progress = progress.Discard
	}
	local, err := in.roots()
	if err != nil {
		return nil, err
	}
	act := &activity{}
	args := &declared{}
	names := newSpellings(in)
	return &gateway{
		in:       in,
		svc:      svc,
		platform: in.platform,
		opts:     maps.Clone(in.opts),
		roots:    &roots{local: local, svc: svc, cells: map[digest.Digest]*cell{}, activity: act, dockerfile: in.Filename, args: args, names: names},
		activity: act,
		warnings: &warnings{sink: svc.Progress},
		args:     args,
		names:    names,
	}, nil
}

// close closes what the front end reads from, unless it is still at it: then that
// is done when it ends.
func (g *gateway) close() error {
	if g.abandoned {
		return nil
	}
	return g.roots.close()
}

// BuildOpts claims every capability: without one, the front end would silently
// drop the feature.
func (g *gateway) BuildOpts() client.BuildOpts {
	return client.BuildOpts{
		Opts:      g.opts,
		SessionID: sessionID,
		Workers:   []client.WorkerInfo{{ID: "shale", Platforms: []ocispec.Platform{g.platform}}},
		Product:   "shale",
		LLBCaps:   pb.Caps.CapSet(pb.Caps.All()),
		Caps:      gwpb.Caps.CapSet(gwpb.Caps.All()),
	}
}

// Inputs has nothing: there is no front end that calls us with states.
func (g *gateway) Inputs(context.Context) (map[string]buildkitllb.State, error) {
	return nil, nil
}

// NewContainer is only used by front ends other than Dockerfile's.
func (g *gateway) NewContainer(context.Context, client.NewContainerRequest) (client.Container, error) {
	return nil, fmt.Errorf("containers for front ends are %w", ErrUnsupported)
}

// Solve wraps a definition into a reference that is evaluated when it is first
// read, which for final results is never.
func (g *gateway) Solve(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	if req.Frontend != "" {
		return g.forward(ctx, req)
	}
	res := client.NewResult()
	if req.Definition == nil || len(req.Definition.Def) == 0 {
		return res, nil
	}
	def, err := g.in.policy.Definition(ctx, req.Definition)
	if err != nil {
		return nil, err
	}
	r := newRef(def, g.roots)
	if req.Evaluate {
		if err := r.Evaluate(ctx); err != nil {
			return nil, err
		}
	}
	res.SetRef(r)
	return res, nil
}

// builtinFrontends are the images that hold the front end we have built in.
var builtinFrontends = map[string]bool{
	"docker.io/docker/dockerfile":          true,
	"docker.io/docker/dockerfile-upstream": true,
}

// forward answers "# syntax=" and BUILDKIT_SYNTAX. The options of the request
// carry "cmdline", which keeps the front end from forwarding again.
func (g *gateway) forward(ctx context.Context, req client.SolveRequest) (*client.Result, error) {
	source := req.FrontendOpt["source"]
	if req.Frontend == "dockerfile.v0" {
		source = req.Frontend
	}
	if !isBuiltin(source) {
		return nil, fmt.Errorf("front end %q is %w: only docker/dockerfile is built in (it is named by the syntax line or by BUILDKIT_SYNTAX)", source, ErrUnsupported)
	}
	g.announce(source)
	nested := *g
	nested.opts = maps.Clone(req.FrontendOpt)
	if nested.opts == nil {
		nested.opts = map[string]string{}
	}
	if _, ok := nested.opts["cmdline"]; !ok {
		nested.opts["cmdline"] = source
	}
	return builder.Build(ctx, &nested)
}

// announce shows which front end is used for the one that was asked for, as
// docker shows the image that it pulls.
func (g *gateway) announce(source string) {
	step := startStep(g.svc.Progress, fmt.Sprintf("[internal] front end %s is built in", source))
	_, tag, _ := strings.Cut(source, ":")
	if tag == "labs" || strings.HasSuffix(tag, "-labs") {
		step.log("The built-in front end is the one of the current release; experiments of other releases may be missing.\n")
	}
	step.done(nil)
}

func isBuiltin(source string) bool {
	if source == "dockerfile.v0" {
		return true
	}
	named, err := reference.ParseNormalizedNamed(source)
	return err == nil && builtinFrontends[named.Name()]
}

// Warn collects a lint finding.
func (g *gateway) Warn(_ context.Context, dgst digest.Digest, msg string, opts client.WarnOpts) error {
	g.warnings.add(dgst, msg, opts)
	return nil
}

var errNoService = errors.New("no service for it is configured")

func defaultPlatform(p *ocispec.Platform) ocispec.Platform {
	if p != nil {
		return platforms.Normalize(*p)
	}
	return platforms.Normalize(platforms.DefaultSpec())
}

func trimScheme(s, scheme string) string {
	return strings.TrimPrefix(s, scheme+"://")
}
