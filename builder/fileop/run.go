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

// Input is one input of an operation. With neither field set it is the
// destination itself.
type Input struct {
	// Root is a mounted root file system.
	Root string
	// Tree is a view of a directory. It stays the caller's.
	Tree *local.Tree
}

// Options say where an operation works.
type Options struct {
	// Dest is the directory that holds the base and receives output 0.
	Dest string
	// Inputs are the inputs of the operation by index. That of the base may
	// be empty; a read-only view of the base is better where the operation
	// reads from it too.
	Inputs []Input
	// TempDir takes the directories of intermediate results, which are
	// removed again. "" is the system's.
	TempDir string
	// Chown gives an entry its owner; nil is fchownat(2). It must not follow
	// links and may be called concurrently.
	Chown func(dir int, name string, uid, gid uint32) error
	// Mknod makes devices and FIFOs; nil is mknodat(2). It may be called
	// concurrently.
	Mknod func(dir int, name string, mode uint32, dev uint64) error
	// Part gives an entry of Dest an inode of its own; nil where a change of its
	// metadata reaches no name outside of Dest.
	Part func(dir int, name string) error
	// OwnerOf reads the owner of entries of inputs given by Root, see
	// local.Options.
	OwnerOf func(dir int, name string, st *unix.Stat_t) (uid, gid uint32, err error)
	// Logger hears about what could not be kept: attributes the file system
	// refuses, devices that a user namespace may not make. nil discards.
	Logger *slog.Logger
}

// ErrUnsupported tells that an operation asks for something that is not done.
var ErrUnsupported = errors.New("unsupported file operation")

// scratch is the index of an empty file system.
const scratch = -1

// Run carries out op. On an error Dest is left as it is and must be thrown
// away.
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
	results []*root // by action; an action on the result of another shares it
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

// temp makes an empty root.
func (r *runner) temp() (*root, error) {
	dir, err := os.MkdirTemp(r.opts.TempDir, "fileop-")
	if err != nil {
		return nil, fmt.Errorf("make directory for intermediate result: %w", err)
	}
	// MkdirTemp gives 0700, which would show as the mode of the root.
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

// source opens what index means for reading while at is written to; the caller
// calls release.
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

// where returns the directory, or the tree, that index means.
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
