package fileop

import (
	"context"
	"errors"
	"log/slog"
	"path"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/source/local"
)

// Materialize copies what name means inside tree to dst, an empty directory,
// and returns the path it then has there: dst itself for a directory, a file in
// dst otherwise. Owners, modes, times, attributes and hard links are the
// tree's. Of opts only Chown and Logger count.
func Materialize(ctx context.Context, tree *local.Tree, name, dst string, opts Options) (_ string, err error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	at, err := openRoot(dst)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, at.close()) }()
	at.chown = opts.Chown
	a := &pb.FileActionCopy{
		Src: path.Join("/", name), Dest: "/", Mode: -1, Timestamp: -1, DirCopyContents: true, FollowSymlink: true,
	}
	c := &copying{src: tree, dst: at, to: "/", a: a, logger: opts.Logger}
	picks, err := tree.Pick(ctx, copySelection(a))
	if err != nil {
		return "", err
	}
	p := picks[0]
	if err := c.pick(ctx, p); err != nil {
		return "", err
	}
	if !p.IsDir() {
		return path.Join(dst, path.Base(p.Source)), nil
	}
	// The top of a copy keeps its mode when it was there before; here it
	// stands for the source.
	return dst, at.apply(at.fd(), ".", ".", c.attrs(p))
}
