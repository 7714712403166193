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

// sessionID is written into each local source. It is constant because BuildKit gives a
// source without a session ID a random value, and then the digests differ in each run.
const sessionID = "shale"

// gateway implements the client through which the front end accesses its inputs while it
// converts a Dockerfile. A nested front end (# syntax=) gets a copy with its own options.
type gateway struct {
	in       *Inputs
	svc      Services
	platform ocispec.Platform
	// opts belongs to one run of the front end, which modifies it.
	opts map[string]string

	roots    *roots
	warnings *warnings
	args     *declared
	names    *spellings
	activity *activity
	// abandoned is true if the front end still runs but its result is not needed.
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

// close closes the files that the front end reads. If the front end still runs,
// runFrontend closes them when it ends.
func (g *gateway) close() error {
	if g.abandoned {
		return nil
	}
	return g.roots.close()
}

// BuildOpts declares support for every capability. The front end silently disables a
// feature if its capability is missing.
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

// Inputs returns no states, because no other front end calls this one.
func (g *gateway) Inputs(context.Context) (map[string]buildkitllb.State, error) {
	return nil, nil
}

// NewContainer returns an error. Only front ends for other languages use it.
func (g *gateway) NewContainer(context.Context, client.NewContainerRequest) (client.Container, error) {
	return nil, fmt.Errorf("containers for front ends are %w", ErrUnsupported)
}

// Solve returns a reference to a definition. The reference is evaluated when it is read
// for the first time; the final results are never read.
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

// builtinFrontends are the images that contain the front end that is built in.
var builtinFrontends = map[string]bool{
	"docker.io/docker/dockerfile":          true,
	"docker.io/docker/dockerfile-upstream": true,
}

// forward answers "# syntax=" and BUILDKIT_SYNTAX. The option "cmdline" keeps the nested
// front end from forwarding again; forward adds it if the request does not have it.
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

// announce shows that the built-in front end is used instead of an image. Docker shows
// the image that it pulls in the same place.
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
