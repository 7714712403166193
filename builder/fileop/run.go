package fileop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
	"github.com/shale-build/shale/internal/rmtree"
)

// Input is one input of an operation. If neither field is set, it is the destination
// itself.
type Input struct {
	// Root is a mounted root file system.
	Root string
	// Tree is a view of a directory. The caller remains its owner and must close it.
	Tree *local.Tree
}

// Options are the directories of an operation and the functions that change files.
type Options struct {
	// Dest is the directory with the base. It becomes output 0.
	Dest string
	// Inputs are the inputs of the operation by index. The input that is the base may be
	// empty. If the operation also reads from the base, it should be a read-only view of
	// it.
	Inputs []Input
	// TempDir is the parent of the directories of intermediate results, which Run
	// removes. If it is "", the system's temporary directory is used.
	TempDir string
	// Chown sets the owner of an entry. If it is nil, fchownat(2) is used. It must not
	// follow symbolic links, and may be called concurrently.
	Chown func(dir int, name string, uid, gid uint32) error
	// Mknod creates devices and FIFOs. If it is nil, mknodat(2) is used. It may be called
	// concurrently.
	Mknod func(dir int, name string, mode uint32, dev uint64) error
	// Part gives an entry of Dest an inode of its own. It is nil if changing the metadata
	// of an entry does not affect names outside of Dest.
	Part func(dir int, name string) error
	// OwnerOf returns the owner of entries of inputs that are given by Root, see
	// local.Options.
	OwnerOf func(dir int, name string, st *unix.Stat_t) (uid, gid uint32, err error)
	// Logger reports metadata that could not be kept: xattrs that the file system
	// rejects, and devices that cannot be created in a user namespace. If it is nil,
	// these messages are discarded.
	Logger *slog.Logger
}

// ErrUnsupported is returned if an operation uses a feature that is not supported.
var ErrUnsupported = errors.New("unsupported file operation")

// scratch is the index of an empty file system.
const scratch = -1

// Run runs op. After an error, Dest contains a partial result, and the caller must
// discard it.
func Run(ctx context.Context, op *pb.FileOp, opts Options) (err error) {
	plan, err := newPlan(op, len(opts.Inputs))
	if err != nil {
		return err
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := &runner{opts: opts, plan: plan, results: make([]*root, len(op.GetActions()))}
	defer func() { err = errors.Join(err, r.close()) }()
	if r.dest, err = openRoot(opts.Dest); err != nil {
		return err
	}
	r.dest.chown, r.dest.mknod, r.dest.part, r.dest.made = opts.Chown, opts.Mknod, opts.Part, map[inode]bool{}
	for i, a := range op.GetActions() {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := r.action(ctx, i, a); err != nil {
			return err
		}
	}
	return nil
}

// runner is the state of a running operation.
type runner struct {
	opts    Options
	plan    plan
	dest    *root
	results []*root // by action; an action on the result of another action shares its root
	temps   []*root
}

func (r *runner) action(ctx context.Context, i int, a *pb.FileAction) error {
	at, err := r.target(i, int(a.GetInput()))
	if err != nil {
		return err
	}
	r.results[i] = at
	switch act := a.GetAction().(type) {
	case *pb.FileAction_Copy:
		return r.copy(ctx, at, int(a.GetSecondaryInput()), act.Copy)
	case *pb.FileAction_Mkdir:
		return r.mkdir(at, act.Mkdir)
	case *pb.FileAction_Mkfile:
		return r.mkfile(at, act.Mkfile)
	case *pb.FileAction_Symlink:
		return r.symlink(at, act.Symlink)
	case *pb.FileAction_Rm:
		return r.rm(ctx, at, act.Rm)
	}
	return fmt.Errorf("%w: action %T", ErrUnsupported, a.GetAction())
}

// target returns the directory that action i changes.
func (r *runner) target(i, input int) (*root, error) {
	if r.plan.onDest[i] {
		return r.dest, nil
	}
	if n := input - len(r.opts.Inputs); n >= 0 {
		return r.results[n], nil
	}
	return r.temp()
}

// temp creates an empty root.
func (r *runner) temp() (*root, error) {
	dir, err := os.MkdirTemp(r.opts.TempDir, "fileop-")
	if err != nil {
		return nil, fmt.Errorf("make directory for intermediate result: %w", err)
	}
	// MkdirTemp uses the mode 0700, which would become the mode of the copied root.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the root of a file system is world-readable
		return nil, errors.Join(err, os.Remove(dir))
	}
	at, err := openRoot(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	at.chown, at.mknod = r.opts.Chown, r.opts.Mknod
	r.temps = append(r.temps, at)
	return at, nil
}

// source opens the files of input or result index for reading, while at is being changed.
// The caller must call release.
func (r *runner) source(ctx context.Context, index int, at *root) (t *local.Tree, release func(), err error) {
	dir, tree, err := r.where(index)
	if err != nil {
		return nil, nil, err
	}
	if tree != nil {
		return tree, func() {}, nil
	}
	t, err = local.Open(ctx, local.Options{Dir: dir, KeepOwners: true, OwnerOf: r.opts.OwnerOf, Whole: dir == at.dir})
	if err != nil {
		return nil, nil, err
	}
	return t, func() { _ = t.Close() }, nil
}

// where returns the directory or the tree of input or result index.
func (r *runner) where(index int) (string, *local.Tree, error) {
	if index < 0 {
		empty, err := r.temp()
		if err != nil {
			return "", nil, err
		}
		return empty.dir, nil, nil
	}
	if n := index - len(r.opts.Inputs); n >= 0 {
		return r.results[n].dir, nil, nil
	}
	in := r.opts.Inputs[index]
	switch {
	case in.Tree != nil:
		return "", in.Tree, nil
	case in.Root != "":
		return in.Root, nil, nil
	}
	return r.opts.Dest, nil, nil
}

func (r *runner) close() error {
	var errs []error
	if r.dest != nil {
		errs = append(errs, r.dest.close())
	}
	for _, t := range r.temps {
		errs = append(errs, t.close(), rmtree.Remove(t.dir))
	}
	return errors.Join(errs...)
}
