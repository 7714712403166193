package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/shale-build/shale/builder/source/shelf"
)

// kept returns the name of the reference that marks a completely fetched commit.
func kept(object string) string { return "refs/shale/" + object }

// ensure returns the cached repository with the commit c, under a shared lock, and a git
// command that works in it. If the commit is missing, it is fetched, and messages of git
// are written to stderr.
func (r *Repositories) ensure(ctx context.Context, s Spec, c Commit, stderr io.Writer) (*bare, command, error) {
	g, err := r.local()
	if err != nil {
		return nil, g, err
	}
	for range 3 {
		b, err := r.open(ctx, s.Remote, shelf.Shared)
		if err != nil {
			return nil, g, err
		}
		g.gitDir = b.path
		if b.has(ctx, g, c.Object) {
			return b, g, nil
		}
		b.close()
		if err := r.fetch(ctx, s, c, stderr); err != nil {
			return nil, g, err
		}
	}
	return nil, g, fmt.Errorf("the commit %s of %s does not stay in the cache", c.Object, s.shown())
}

func (b *bare) has(ctx context.Context, g command, object string) bool {
	if _, err := os.Lstat(b.path); err != nil {
		return false
	}
	if got, err := g.line(ctx, "rev-parse", "--verify", "--quiet", kept(object)); err != nil || got != object {
		return false
	}
	_, err := g.run(ctx, "cat-file", "-e", object+"^{commit}")
	return err == nil
}

// fetch fetches c into the cache.
func (r *Repositories) fetch(ctx context.Context, s Spec, c Commit, stderr io.Writer) error {
	b, err := r.open(ctx, s.Remote, shelf.Exclusive)
	if err != nil {
		return err
	}
	defer b.close()
	g, release, err := r.remote(ctx, s)
	if err != nil {
		return err
	}
	defer release()
	g.stderr = stderr
	err = b.fill(ctx, g, c)
	if err != nil && ctx.Err() == nil && !errors.Is(err, errMoved) {
		// The cache itself may be the cause: the remote may have renamed its references
		// or changed its hash algorithm, or the cached repository may be damaged.
		r.opts.Logger.Debug("fetch into a fresh repository", "remote", s.shown(), "error", err)
		if err := b.Empty(); err != nil {
			return err
		}
		err = b.fill(ctx, g, c)
	}
	if err != nil {
		return fmt.Errorf("fetch from %s: %w", s.shown(), err)
	}
	if _, err := shelf.Shelf(r.opts.Dir).Trim(bounds); err != nil {
		r.opts.Logger.Warn("the cache of git repositories was not trimmed", "error", err)
	}
	return nil
}

// errMoved is returned if the remote no longer has the commit that it named before.
var errMoved = errors.New("the repository no longer has this commit")

// fill fetches c and as little else as the server supports.
func (b *bare) fill(ctx context.Context, g command, c Commit) error {
	local := g
	local.protocols, local.config, local.stderr = localProtocol, nil, nil
	if err := b.prepare(ctx, local, c.Object); err != nil {
		return err
	}
	g.gitDir, local.gitDir = b.path, b.path
	if c.Ref != "" {
		err := b.fetchRef(ctx, g, "+"+c.Ref+":"+kept(c.Object))
		if err != nil {
			return err
		}
		if b.has(ctx, local, c.Object) {
			return nil
		}
		// The reference has changed since it was resolved.
		if _, err := local.run(ctx, "update-ref", "-d", kept(c.Object)); err != nil {
			return err
		}
	}
	err := b.fetchRef(ctx, g, "+"+c.Object+":"+kept(c.Object))
	if err == nil {
		return nil
	}
	if !notServed(err) {
		return err
	}
	return b.fetchAll(ctx, g, local, c)
}

// fetchAll fetches all branches and tags. It is used for servers that send commits only
// by the name of a reference.
func (b *bare) fetchAll(ctx context.Context, g, local command, c Commit) error {
	args := []string{"fetch", "--quiet", "--no-tags", "--force"}
	if _, err := os.Lstat(filepath.Join(b.path, "shallow")); err == nil {
		args = append(args, "--unshallow")
	}
	args = append(args, "origin", "+refs/heads/*:refs/remote/heads/*", "+refs/tags/*:refs/remote/tags/*")
	if _, err := g.run(ctx, args...); err != nil {
		return err
	}
	if _, err := local.run(ctx, "cat-file", "-e", c.Object+"^{commit}"); err != nil {
		return fmt.Errorf("%s: %w, or does not give it away: name a branch or tag that has it", c.Object, errMoved)
	}
	_, err := local.run(ctx, "update-ref", kept(c.Object), c.Object)
	return err
}

// fetchRef fetches one reference. If the server supports it, the history is not fetched.
func (b *bare) fetchRef(ctx context.Context, g command, refspec string) error {
	args := []string{"fetch", "--quiet", "--no-tags", "--force", "--depth=1", "origin", refspec}
	_, err := g.run(ctx, args...)
	if failed, ok := errors.AsType[*Error](err); ok && withoutDepth(failed) {
		_, err = g.run(ctx, append(args[:4:4], args[5:]...)...)
	}
	return err
}

// withoutDepth reports whether a server cannot send a commit without its history.
func withoutDepth(e *Error) bool {
	return strings.Contains(e.Stderr, "shallow") || strings.Contains(e.Stderr, "--depth")
}

func notServed(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (strings.Contains(e.Stderr, "not our ref") || strings.Contains(e.Stderr, "unadvertised object") ||
		strings.Contains(e.Stderr, "couldn't find remote ref"))
}
