package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Checkout writes the files of c to a directory in dir, which must be empty. It returns
// that directory, or the subdirectory s.Subdir of it. Messages of git are written to
// stderr. If the cache does not have c, it is fetched first.
func (r *Repositories) Checkout(ctx context.Context, s Spec, c Commit, dir string, stderr io.Writer) (string, error) {
	b, g, err := r.ensure(ctx, s, c, stderr)
	if err != nil {
		return "", err
	}
	defer b.close()
	w := &worktree{repos: r, spec: s, commit: c, bare: b, dir: filepath.Join(dir, "files")}
	w.gitDir = filepath.Join(dir, "git")
	if s.KeepGitDir {
		w.gitDir = filepath.Join(w.dir, ".git")
	}
	if w.peeled, err = g.line(ctx, "rev-parse", "--verify", c.Object+"^{commit}"); err != nil {
		return "", err
	}
	g.gitDir, g.workTree, g.dir = w.gitDir, w.dir, w.dir
	if err := w.fill(ctx, g, stderr); err != nil {
		return "", fmt.Errorf("check out %s of %s: %w", c.Object, s.shown(), err)
	}
	return subdirectory(w.dir, s.Subdir)
}

// worktree is a checkout that is being made.
type worktree struct {
	repos  *Repositories
	spec   Spec
	commit Commit
	peeled string
	bare   *bare
	dir    string
	gitDir string
}

func (w *worktree) fill(ctx context.Context, g command, stderr io.Writer) error {
	if err := os.Mkdir(w.dir, 0o755); err != nil { //nolint:gosec // the directory above is private
		return err
	}
	if _, err := g.run(ctx, "init", "--quiet", objectFormat(w.commit.Object)); err != nil {
		return err
	}
	if _, err := g.run(ctx, "remote", "add", "origin", w.spec.Remote); err != nil {
		return err
	}
	bring := w.borrow
	if w.spec.KeepGitDir {
		bring = w.own
	}
	if err := bring(ctx, g); err != nil {
		return err
	}
	if !w.spec.SkipSubmodules {
		if err := w.submodules(ctx, g, stderr); err != nil {
			return err
		}
	}
	if w.spec.KeepGitDir {
		if err := w.settle(ctx, g); err != nil {
			return err
		}
	}
	if w.spec.CommitTimes {
		at, err := commitTime(ctx, g, w.peeled)
		if err != nil {
			return err
		}
		return setTimes(w.dir, at)
	}
	return nil
}

// borrow uses the objects in the cached repository without copying them.
func (w *worktree) borrow(ctx context.Context, g command) error {
	objects := filepath.Join(w.bare.path, "objects")
	info := filepath.Join(w.gitDir, "objects", "info")
	if err := os.MkdirAll(info, 0o700); err != nil {
		return err
	}
	// git accepts any character in a quoted path.
	line := strconv.Quote(objects) + "\n"
	if err := os.WriteFile(filepath.Join(info, "alternates"), []byte(line), 0o600); err != nil {
		return err
	}
	_, err := g.run(ctx, "read-tree", "-m", "-u", w.peeled)
	return err
}

// own creates a complete repository with its own objects.
func (w *worktree) own(ctx context.Context, g command) error {
	refspec := kept(w.commit.Object)
	if w.commit.Ref != "" {
		refspec = "+" + refspec + ":" + w.commit.Ref
	}
	// Fetch with the file transport, also on this machine. A clone by path would use hard
	// links and trust a damaged repository.
	args := []string{"fetch", "--quiet", "--update-head-ok", "--depth=1", "--no-tags", "file://" + w.bare.path, refspec}
	if _, err := g.run(ctx, args...); err != nil {
		return err
	}
	_, err := g.run(ctx, "checkout", "--quiet", "--detach", w.peeled)
	return err
}

// submodules fetches submodules into the checkout. The repository controls their
// addresses, so only the remote transports are allowed for them.
func (w *worktree) submodules(ctx context.Context, g command, stderr io.Writer) error {
	if _, err := os.Lstat(filepath.Join(w.dir, ".gitmodules")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	net, release, err := w.repos.remote(ctx, w.spec)
	if err != nil {
		return err
	}
	defer release()
	net.gitDir, net.workTree, net.dir, net.stderr = g.gitDir, g.workTree, g.dir, stderr
	args := []string{"submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"}
	_, err = net.run(ctx, args...)
	if failed, ok := errors.AsType[*Error](err); ok && withoutDepth(failed) {
		_, err = net.run(ctx, args[:5]...)
	}
	if err != nil {
		return fmt.Errorf("submodules: %w", err)
	}
	if w.spec.KeepGitDir {
		return nil
	}
	return removeLinks(w.dir)
}

// removeLinks removes the files called .git in submodules. They refer to repositories
// that are not part of the checkout.
func removeLinks(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != ".git" {
			return err
		}
		if d.IsDir() {
			return errors.New("a directory called .git in a checkout")
		}
		return os.Remove(path) //nolint:gosec // in a directory of this build
	})
}

// settle removes data from .git that would differ between two checkouts of the same
// commit.
func (w *worktree) settle(ctx context.Context, g command) error {
	var repos []string
	err := filepath.WalkDir(w.gitDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == "HEAD" && filepath.Base(filepath.Dir(path)) != "logs" && filepath.Base(filepath.Dir(path)) != "origin" {
			repos = append(repos, filepath.Dir(path))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, repo := range repos {
		for _, name := range []string{"FETCH_HEAD", "ORIG_HEAD", "logs"} {
			if err := os.RemoveAll(filepath.Join(repo, name)); err != nil {
				return err
			}
		}
		// Write the index again, without the times and inode numbers of this machine.
		if err := os.Remove(filepath.Join(repo, "index")); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		at := g
		at.gitDir, at.workTree = repo, ""
		if _, err := at.run(ctx, "read-tree", "HEAD"); err != nil {
			return err
		}
	}
	return nil
}

func commitTime(ctx context.Context, g command, commit string) (time.Time, error) {
	text, err := g.line(ctx, "log", "--no-walk", "--no-show-signature", "--format=%ct", commit)
	if err != nil {
		return time.Time{}, err
	}
	sec, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("time of commit %s: %w", commit, err)
	}
	return time.Unix(sec, 0), nil
}

// subdirectory returns the path of the directory name in dir. It returns an error for
// symbolic links in name, because they may lead out of dir.
func subdirectory(dir, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("open checkout: %w", err)
	}
	defer func() { _ = root.Close() }()
	at := ""
	for part := range strings.SplitSeq(name, "/") {
		if part == "" {
			continue
		}
		at = filepath.Join(at, part)
		info, err := root.Lstat(at)
		if err != nil {
			return "", fmt.Errorf("invalid subdir %s: failed to lstat %q: %v", name, at, err) //nolint:errorlint // not the Dockerfile is missing
		}
		if !info.IsDir() {
			return "", fmt.Errorf("invalid subdir %s: git subpath %q contains non-directory %q", name, name, at)
		}
	}
	return filepath.Join(dir, at), nil
}
