package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"

	"github.com/moby/buildkit/solver/pb"
	chmod "github.com/tonistiigi/dchapes-mode"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
)

// copying is the state of one copy action.
type copying struct {
	src    *local.Tree
	dst    *root
	to     string // clean, with the trailing slash or dot of the action
	owner  *ids
	mode   *uint32    // replaces modes if set
	change *chmod.Set // changes modes if set
	a      *pb.FileActionCopy
	logger *slog.Logger
}

// copy runs a copy action.
func (r *runner) copy(ctx context.Context, at *root, from int, a *pb.FileActionCopy) error {
	src, release, err := r.source(ctx, from, at)
	if err != nil {
		return err
	}
	defer release()
	c := &copying{src: src, dst: at, to: clean(a.GetDest()), a: a, logger: r.opts.Logger}
	if c.owner, err = r.owner(a.GetOwner()); err != nil {
		return err
	}
	if err := c.parseMode(); err != nil {
		return err
	}
	if !a.GetCreateDestPath() {
		if err := c.needParent(); err != nil {
			return err
		}
	}
	picks, err := src.Pick(ctx, copySelection(a))
	if missing, ok := errors.AsType[*local.NotFoundError](err); ok && from < 0 {
		// BuildKit does not check the path of an empty stage before it copies, so its
		// message differs here.
		return &fs.PathError{Op: "lstat", Path: missing.Path, Err: unix.ENOENT}
	}
	if err != nil {
		return err
	}
	if len(picks) == 0 && !a.GetAllowEmptyWildcard() {
		return &local.NotFoundError{Path: clean(a.GetSrc())}
	}
	for _, p := range picks {
		if err := c.pick(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// parseMode parses the mode of the action. A symbolic mode takes precedence: the numeric
// field is then zero, which would also be a valid mode.
func (c *copying) parseMode() error {
	if s := c.a.GetModeStr(); s != "" {
		set, err := chmod.ParseWithUmask(s, 0)
		if err != nil {
			return fmt.Errorf("parse mode %q: %w", s, err)
		}
		c.change = &set
		return nil
	}
	if m := c.a.GetMode(); m != -1 {
		mode := uint32(m) & 0o7777
		c.mode = &mode
	}
	return nil
}

// needParent returns an error if the parent directory of the destination does not exist.
func (c *copying) needParent() error {
	rel, err := c.dst.resolve(path.Join("/", c.a.GetDest()))
	if err != nil {
		return err
	}
	if _, err := c.dst.lstat(path.Dir(rel)); err != nil {
		return fmt.Errorf("find directory of %s: %w", c.a.GetDest(), err)
	}
	return nil
}

// pick copies or unpacks one match of the source path.
func (c *copying) pick(ctx context.Context, p *local.Pick) error {
	if c.a.GetAttemptUnpackDockerCompatibility() {
		done, err := c.unpack(ctx, p.Entry)
		if err != nil || done {
			return err
		}
	}
	made, err := c.makeNamedDirs()
	if err != nil {
		return err
	}
	target, more, err := c.place(p)
	if err != nil {
		return err
	}
	if err := c.tree(ctx, p, target); err != nil {
		return err
	}
	return c.dst.setTimesOf(append(made, more...), stamp(c.a.GetTimestamp()))
}

// parentAttrs returns the attributes of new parent directories of the destination.
func (c *copying) parentAttrs() attrs {
	mode := uint32(0o755)
	if c.mode != nil {
		mode = *c.mode & perm
	}
	return attrs{owner: c.owner, mode: &mode}
}

// makeNamedDirs creates the directories that the destination names: the whole path if it
// ends in a slash, otherwise all but the last component. It returns the directories that
// it created.
func (c *copying) makeNamedDirs() ([]string, error) {
	name := c.to
	if dir, last := path.Split(name); last != "" && last != "." {
		name = dir
	}
	rel, err := c.dst.resolve(name)
	if err != nil {
		return nil, err
	}
	return c.dst.mkdirAll(rel, c.parentAttrs())
}

// place returns the path to which the top of a pick is copied. It creates the directories
// above that path and returns them.
func (c *copying) place(p *local.Pick) (string, []string, error) {
	target, err := c.dst.resolve(path.Clean(c.to))
	if err != nil {
		return "", nil, err
	}
	there, err := c.dst.lstat(target)
	exists := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	onDir := exists && there.Mode&unix.S_IFMT == unix.S_IFDIR
	contents := c.a.GetDirCopyContents() && p.IsDir()
	if (p.IsDir() && !contents && exists) || (!p.IsDir() && onDir) {
		// The joined path is not resolved again. A symbolic link there is replaced by a
		// file. If a directory is copied, the link is an error.
		target = path.Join(target, path.Base(p.Source))
	}
	need := path.Dir(target)
	if contents && !exists {
		need = target
	}
	made, err := c.dst.mkdirAll(need, c.parentAttrs())
	return target, made, err
}
