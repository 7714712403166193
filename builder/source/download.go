package source

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/builder/frontend"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source/http"
	"github.com/shale-build/shale/builder/source/local"
)

// download returns the identity of a downloaded file. If its checksum is given, the file
// is only downloaded when a step reads it. Otherwise it is downloaded and identified by
// its content. The URL is not part of the identity. The modification time is, because the
// file in the layer gets the same time.
func (s *Sources) download(ctx context.Context, op *pb.SourceOp, report solve.Reporter) (solve.Source, error) {
	if op.GetIdentifier() == frontend.StdinURL {
		return s.archive(ctx, op)
	}
	opts, err := http.ParseAttrs(op.GetAttrs())
	if err != nil {
		return solve.Source{}, err
	}
	open := func(ctx context.Context, report solve.Reporter) (solve.Snapshot, error) {
		src, err := s.opened(ctx, op, opts, report)
		return solve.Snapshot{Tree: src.Tree, Dir: src.Dir, Salt: src.Salt}, err
	}
	if opts.Checksum != "" {
		if err := onlySHA256(opts.Checksum); err != nil {
			return solve.Source{}, err
		}
		id := []string{"http", opts.Checksum.String(), opts.Filename, number(opts.Perm), number(opts.UID), number(opts.GID)}
		return solve.Source{Identity: strings.Join(id, "\x00"), Open: open}, nil
	}
	return s.opened(ctx, op, opts, report)
}

func onlySHA256(d digest.Digest) error {
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("unsupported digest algorithm %q", d.Algorithm())
	}
	return nil
}

func number(n *uint32) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

// opened downloads the file if the cache does not have it, and opens it.
func (s *Sources) opened(ctx context.Context, op *pb.SourceOp, opts http.Options, report solve.Reporter) (solve.Source, error) {
	start := time.Now()
	d, err := s.get(ctx, op, opts)
	if err != nil {
		return solve.Source{}, err
	}
	done := time.Now()
	report.Status(progress.Status{ID: d.Name, Current: d.Size, Total: d.Size, Started: &start, Completed: &done})
	salt := "http " + d.LastModified.UTC().Format(time.RFC3339Nano)
	return s.tree(ctx, salt, local.Options{Dir: d.Dir, Index: s.Index, KeepOwners: opts.UID != nil || opts.GID != nil})
}

// get asks the host only once per build for each file and its attributes.
func (s *Sources) get(ctx context.Context, op *pb.SourceOp, opts http.Options) (http.Download, error) {
	key := op.GetIdentifier() + "\x00" + fmt.Sprint(op.GetAttrs())
	return s.fetched.Get(key, func() (http.Download, error) {
		if err := opts.Authorize(op.GetIdentifier(), s.Secret); err != nil {
			return http.Download{}, err
		}
		return s.Downloads.Get(ctx, op.GetIdentifier(), opts)
	})
}

// archive opens the build context that was read from standard input.
func (s *Sources) archive(ctx context.Context, op *pb.SourceOp) (solve.Source, error) {
	opts, err := http.ParseAttrs(op.GetAttrs())
	if err != nil {
		return solve.Source{}, err
	}
	opts.Spooled = map[string]string{frontend.StdinURL: s.Archive}
	dir, err := s.Mounts.NewDir("archive")
	if err != nil {
		return solve.Source{}, err
	}
	if _, _, err := http.Fetch(ctx, op.GetIdentifier(), opts, dir); err != nil {
		return solve.Source{}, err
	}
	return s.tree(ctx, "", local.Options{Dir: dir})
}

var _ frontend.HTTP = (*Sources)(nil)

// LastModified implements frontend.HTTP. It returns nil for a file with a checksum, so
// that the host is not asked for a file that may not be needed.
func (s *Sources) LastModified(ctx context.Context, op *pb.SourceOp) (*time.Time, error) {
	opts, err := http.ParseAttrs(op.GetAttrs())
	if err != nil || opts.Checksum != "" {
		return nil, err
	}
	d, err := s.get(ctx, op, opts)
	if err != nil || !d.Dated {
		return nil, err
	}
	return &d.LastModified, nil
}
