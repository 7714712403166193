package frontend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/imageutil"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
)

// ResolveImageConfig returns the reference with its digest as well. The graph then refers
// to the same image even if the tag moves during the build.
func (g *gateway) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	defer g.activity.begin()()
	step := startStep(g.svc.Progress, opt.LogName)
	allowed, err := g.applyPolicy(ctx, ref, opt)
	if err != nil {
		step.done(err)
		return "", "", nil, err
	}
	names := []string{allowed}
	if allowed == ref && opt.OCILayoutOpt == nil {
		names = g.names.spelled(ref, opt.LogName)
	}
	pinned, dgst, config, err := g.resolveImage(ctx, names[0], opt)
	if err == nil && len(names) > 1 {
		err = g.checkSame(ctx, ref, opt)
	}
	if err == nil {
		g.args.resolved(config)
		err = checkTriggers(ref, config)
	}
	if err == nil {
		for _, name := range g.names.resolved(config) {
			err = errors.Join(err, g.checkSame(ctx, name, opt))
		}
	}
	step.done(err)
	return pinned, dgst, config, err
}

// applyPolicy returns the reference to use instead of ref, which is usually ref itself.
func (g *gateway) applyPolicy(ctx context.Context, ref string, opt sourceresolver.Opt) (string, error) {
	scheme := llb.SchemeImage
	if opt.OCILayoutOpt != nil {
		scheme = llb.SchemeLayout
	}
	// The rules of a policy match complete names.
	complete := g.names.original(ref)
	op := &pb.SourceOp{Identifier: scheme + "://" + complete}
	if err := g.in.policy.Source(ctx, op); err != nil {
		return "", fmt.Errorf("failed to resolve source metadata for %s: could not resolve image due to policy: %w", ref, err)
	}
	switch updated, rest := llb.SplitSource(op); {
	case updated == scheme && rest == complete:
		return ref, nil
	case updated == scheme:
		return rest, nil
	}
	return "", &imageutil.ResolveToNonImageError{Ref: ref, Updated: respell(op.Identifier, opt.LogName)}
}

// respell returns the address that replaces a named context, in the form that the front
// end expects. The front end (dockerui, named contexts) replaces "scheme://" by
// "scheme:", which breaks addresses that need their slashes.
func respell(identifier, logName string) string {
	scheme, rest, ok := strings.Cut(identifier, "://")
	if !ok || !strings.HasPrefix(logName, "[context ") {
		return identifier
	}
	switch scheme {
	case llb.SchemeHTTP, llb.SchemeHTTPS, llb.SchemeGit:
		return scheme + ":////" + rest
	}
	return identifier
}

func (g *gateway) resolveImage(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	if l := opt.OCILayoutOpt; l != nil {
		dgst, config, err := g.resolveLayout(ctx, ref, l)
		return ref, dgst, config, err
	}
	if g.svc.Images == nil {
		return "", "", nil, fmt.Errorf("resolve image %s: %w", ref, errNoService)
	}
	var platform *ocispec.Platform
	pull := false
	if o := opt.ImageOpt; o != nil {
		platform = o.Platform
		pull = o.ResolveMode == pb.AttrImageResolveModeForcePull
	}
	pinned, dgst, config, err := g.svc.Images.Resolve(ctx, ref, platform, pull)
	if pinned == "" {
		pinned = ref
	}
	return pinned, dgst, config, err
}

// checkSame returns an error if a complete name refers to different images with and
// without its registry. It is needed only for a name in an ONBUILD trigger, because the
// spellings of other names can be distinguished.
func (g *gateway) checkSame(ctx context.Context, complete string, opt sourceresolver.Opt) error {
	full, _, _, err := g.resolveImage(ctx, complete, opt)
	if err != nil {
		return err
	}
	bare, _, _, err := g.resolveImage(ctx, familiarName(complete), opt)
	if err != nil || bare == full {
		return err
	}
	return fmt.Errorf("image %s is %s, and %s is another: this build names both, one of them in an ONBUILD trigger; name them in the same way",
		familiarName(complete), trimDigest(bare), complete)
}

func trimDigest(pinned string) string {
	name, _, _ := strings.Cut(pinned, "@")
	return name
}

func (g *gateway) resolveLayout(ctx context.Context, ref string, opt *sourceresolver.ResolveOCILayoutOpt) (digest.Digest, []byte, error) {
	layout, ok := g.in.Layouts[opt.Store.StoreID]
	if !ok {
		return "", nil, fmt.Errorf("resolve %s: no layout %q", ref, opt.Store.StoreID)
	}
	if g.svc.Layouts == nil {
		return "", nil, fmt.Errorf("resolve image in layout %s: %w", layout.Dir, errNoService)
	}
	dgst, config, err := g.svc.Layouts.Resolve(ctx, layout.Dir, layout.Digest, opt.Platform)
	if err != nil {
		return "", nil, fmt.Errorf("resolve image in layout %s: %w", layout.Dir, err)
	}
	return dgst, config, nil
}

// ResolveSourceMetadata is called if SOURCE_DATE_EPOCH must be taken from a source. Local
// sources have no such metadata.
func (g *gateway) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	defer g.activity.begin()()
	op = op.CloneVT()
	if err := g.in.policy.Source(ctx, op); err != nil {
		return nil, fmt.Errorf("could not resolve image due to policy: %w", err)
	}
	res := &sourceresolver.MetaResponse{Op: op.CloneVT()}
	scheme, rest := llb.SplitSource(op)
	switch scheme {
	case llb.SchemeLocal:
		return res, nil
	case llb.SchemeGit:
		var err error
		res.Git, err = g.resolveGit(ctx, op, opt)
		return res, err
	case llb.SchemeHTTP, llb.SchemeHTTPS:
		modified, err := g.lastModified(ctx, op)
		res.HTTP = &sourceresolver.ResolveHTTPResponse{
			Filename:     op.Attrs[pb.AttrHTTPFilename],
			LastModified: modified,
		}
		return res, err
	case llb.SchemeImage, llb.SchemeLayout:
		if scheme == llb.SchemeLayout && opt.OCILayoutOpt == nil {
			opt.OCILayoutOpt = &sourceresolver.ResolveOCILayoutOpt{
				Store: sourceresolver.ResolveImageConfigOptStore{StoreID: op.Attrs[pb.AttrOCILayoutStoreID]},
			}
		}
		pinned, dgst, config, err := g.ResolveImageConfig(ctx, rest, opt)
		if err != nil {
			return nil, err
		}
		res.Op.Identifier = scheme + "://" + pinned
		res.Image = &sourceresolver.ResolveImageResponse{Digest: dgst, Config: config}
		return res, nil
	default:
		return nil, fmt.Errorf("metadata of source %s: %w", op.Identifier, ErrUnsupported)
	}
}

func (g *gateway) resolveGit(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.ResolveGitResponse, error) {
	if g.svc.Git == nil {
		return nil, fmt.Errorf("ask the git repository of %s: %w", op.Identifier, errNoService)
	}
	c, err := g.svc.Git.Commit(ctx, op, opt.GitOpt != nil && opt.GitOpt.ReturnObject)
	if err != nil {
		return nil, err
	}
	return &sourceresolver.ResolveGitResponse{
		Checksum: c.Object, Ref: c.Ref, CommitChecksum: c.Peeled, CommitObject: c.Raw, TagObject: c.Tag,
	}, nil
}

func (g *gateway) lastModified(ctx context.Context, op *pb.SourceOp) (*time.Time, error) {
	if op.Identifier == StdinURL {
		return nil, nil
	}
	if g.svc.HTTP == nil {
		return nil, fmt.Errorf("ask for the date of %s: %w", op.Identifier, errNoService)
	}
	return g.svc.HTTP.LastModified(ctx, op)
}

// step is a progress vertex of the front end itself.
type step struct {
	sink progress.Sink
	v    progress.Vertex
}

func startStep(sink progress.Sink, name string) step {
	now := time.Now()
	s := step{sink: sink, v: progress.Vertex{
		Digest:  digest.FromString("front end step " + name),
		Name:    name,
		Started: &now,
	}}
	if name != "" {
		sink.Vertex(s.v)
	}
	return s
}

// log adds text to the output of the step.
func (s step) log(text string) {
	s.sink.Log(progress.Log{Vertex: s.v.Digest, Stream: 2, Data: []byte(text), Timestamp: time.Now()})
}

func (s step) done(err error) {
	if s.v.Name == "" {
		return
	}
	now := time.Now()
	s.v.Completed = &now
	if err != nil {
		s.v.Error = err.Error()
	}
	s.sink.Vertex(s.v)
}
