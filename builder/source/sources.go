package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source/git"
	"github.com/shale-build/shale/builder/source/http"
	"github.com/shale-build/shale/builder/source/local"
	"github.com/shale-build/shale/builder/source/memo"
	"github.com/shale-build/shale/storage/registry"
)

// Sources provides the source vertices of one build.
type Sources struct {
	Images *Images
	// Index caches the digests of local files between builds.
	Index *local.Index
	// Locals maps the names of local sources to directories.
	Locals map[string]string
	// Layouts maps the store ids of oci-layout sources to OCI layouts.
	Layouts map[string]frontend.Layout
	// Archive is the path of the file for frontend.StdinURL.
	Archive string
	// Mounts creates directories for downloads and checkouts.
	Mounts *rootfs.Mounter
	// Git and Downloads fetch repositories and files.
	Git       *git.Repositories
	Downloads *http.Cache
	// Secret returns a secret by its ID and reports whether it exists.
	Secret func(id string) ([]byte, bool, error)

	fetched memo.Memo[http.Download]
	mu      sync.Mutex
	trees   []*local.Tree
}

// Source implements solve.Executor.
func (s *Sources) Source(ctx context.Context, v *llb.Vertex, report solve.Reporter) (solve.Source, error) {
	scheme, rest := llb.SplitSource(v.Source)
	switch scheme {
	case llb.SchemeImage:
		return s.image(ctx, v, rest)
	case llb.SchemeLocal:
		return s.local(ctx, v.Source, rest)
	case llb.SchemeLayout:
		return s.layout(ctx, v)
	case llb.SchemeHTTP, llb.SchemeHTTPS:
		return s.download(ctx, v.Source, report)
	case llb.SchemeGit:
		return s.repository(ctx, v.Source)
	}
	return solve.Source{}, fmt.Errorf("source %s: this version cannot read from %s sources", v.Source.GetIdentifier(), scheme)
}

func (s *Sources) image(ctx context.Context, v *llb.Vertex, ref string) (solve.Source, error) {
	b, err := s.Images.resolve(ctx, ref, wanted(v.Platform), false)
	if err != nil {
		return solve.Source{}, err
	}
	return solve.Source{
		Chain: b.chain,
		Fetch: func(ctx context.Context, report solve.Reporter) (string, error) {
			return s.Images.fetch(ctx, b, newBlobProgress(report))
		},
	}, nil
}

func (s *Sources) layout(ctx context.Context, v *llb.Vertex) (solve.Source, error) {
	at, ok := s.Layouts[v.Source.GetAttrs()[pb.AttrOCILayoutStoreID]]
	if !ok {
		return solve.Source{}, fmt.Errorf("no directory is known for the image layout %s", v.Source.GetIdentifier())
	}
	ref := layoutRef(at.Dir, at.Digest)
	platform := wanted(v.Platform)
	res, err := s.Images.registry.ResolveLayout(ctx, ref, platform)
	if err != nil {
		return solve.Source{}, err
	}
	chain, err := claimedChain(res.Config)
	if err != nil {
		return solve.Source{}, fmt.Errorf("image layout %s: %w", at.Dir, err)
	}
	return solve.Source{
		Chain: chain,
		Fetch: func(ctx context.Context, report solve.Reporter) (string, error) {
			img, err := s.Images.registry.PullLayout(ctx, ref, registry.PullOptions{
				Platform: platform, Progress: newBlobProgress(report),
			})
			if err != nil {
				return "", err
			}
			return s.Images.unpacked(ctx, img.TopLayer, chain)
		},
	}, nil
}

func layoutRef(dir string, dgst digest.Digest) string { return dir + "@" + dgst.String() }

func (s *Sources) local(ctx context.Context, op *pb.SourceOp, name string) (solve.Source, error) {
	dir, ok := s.Locals[name]
	if !ok {
		return solve.Source{}, fmt.Errorf("no directory is known for the context %q", name)
	}
	follow, err1 := listAttr(op, pb.AttrFollowPaths)
	exclude, err2 := listAttr(op, pb.AttrExcludePatterns)
	if err := errors.Join(err1, err2); err != nil {
		return solve.Source{}, err
	}
	return s.tree(ctx, "", local.Options{Dir: dir, FollowPaths: follow, ExcludePatterns: exclude, Index: s.Index})
}

func listAttr(op *pb.SourceOp, name string) ([]string, error) {
	text := op.GetAttrs()[name]
	if text == "" {
		return nil, nil
	}
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("attribute %s of %s: %w", name, op.GetIdentifier(), err)
	}
	return list, nil
}

func (s *Sources) tree(ctx context.Context, salt string, opts local.Options) (solve.Source, error) {
	t, err := local.Open(ctx, opts)
	if err != nil {
		return solve.Source{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trees = append(s.trees, t)
	return solve.Source{Tree: t, Dir: opts.Dir, Salt: salt}, nil
}

// Close closes the trees that Source opened and releases the downloads.
func (s *Sources) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, t := range s.trees {
		errs = append(errs, t.Close())
	}
	return errors.Join(append(errs, s.Downloads.Close())...)
}

// Layouts answers the front end's questions about OCI layout directories.
type Layouts struct{ Registry *registry.Client }

var _ frontend.Layouts = Layouts{}

// Resolve implements frontend.Layouts.
func (l Layouts) Resolve(ctx context.Context, dir string, dgst digest.Digest, platform *ocispec.Platform) (digest.Digest, []byte, error) {
	res, err := l.Registry.ResolveLayout(ctx, layoutRef(dir, dgst), wanted(platform))
	return res.Digest, res.Config, err
}
