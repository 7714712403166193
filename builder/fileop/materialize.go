package fileop

import (
	"context"
	"errors"
	"log/slog"
	"path"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/source/local"
)

// Materialize copies the file or directory name of tree to dst, which must be an empty
// directory. It returns the path of the copy: dst for a directory, otherwise a file in
// dst. The copy keeps the owners, modes, times, xattrs and hard links of the tree. Only
// Chown and Logger of opts are used.
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
	// The top directory of a copy keeps its mode if it existed before. Here it must get
	// the mode of the source.
	return dst, at.apply(at.fd(), ".", ".", c.attrs(p))
}
