package source

import (
	"context"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source/git"
	"github.com/shale-build/shale/builder/source/local"
)

// repository returns the identity of files in a git repository, which is their commit.
func (s *Sources) repository(ctx context.Context, op *pb.SourceOp) (solve.Source, error) {
	spec, err := git.ParseSource(op)
	if err != nil {
		return solve.Source{}, err
	}
	commit, err := s.Git.Resolve(ctx, spec)
	if err != nil {
		return solve.Source{}, err
	}
	id := git.Key(spec, commit)
	salt := ""
	if spec.CommitTimes {
		salt = id // the files get the time of the commit
	}
	return solve.Source{
		Identity: id,
		Open: func(ctx context.Context, report solve.Reporter) (solve.Snapshot, error) {
			dir, err := s.Mounts.NewDir("checkout")
			if err != nil {
				return solve.Snapshot{}, err
			}
			if dir, err = s.Git.Checkout(ctx, spec, commit, dir, report.Stderr()); err != nil {
				return solve.Snapshot{}, err
			}
			src, err := s.tree(ctx, salt, local.Options{Dir: dir})
			return solve.Snapshot{Tree: src.Tree, Dir: src.Dir, Salt: src.Salt}, err
		},
	}, nil
}

var _ frontend.Git = (*Sources)(nil)

// Commit implements frontend.Git.
func (s *Sources) Commit(ctx context.Context, op *pb.SourceOp, objects bool) (frontend.Commit, error) {
	spec, err := git.ParseSource(op)
	if err != nil {
		return frontend.Commit{}, err
	}
	c, err := s.Git.Resolve(ctx, spec)
	if err != nil {
		return frontend.Commit{}, err
	}
	out := frontend.Commit{Ref: c.Ref, Object: c.Object, Peeled: c.Peeled}
	if !objects {
		return out, nil
	}
	o, err := s.Git.Objects(ctx, spec, c, nil)
	if err != nil {
		return frontend.Commit{}, err
	}
	out.Raw, out.Tag = o.Raw, o.Tag
	if o.Commit != c.Object {
		out.Peeled = o.Commit
	}
	return out, nil
}
