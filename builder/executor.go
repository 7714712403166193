package builder

import (
	"context"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/fileop"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source"
	"github.com/shale-build/shale/builder/source/local"
	"github.com/shale-build/shale/storage"
)

// executor passes each operation to the package that carries it out.
type executor struct {
	store   *storage.Store
	keeper  *keeper
	mounts  *rootfs.Mounter
	run     *exec.Executor
	sources *source.Sources
	// own is Deps.Own.
	own    func() (func(), error)
	logger *slog.Logger
	bases  bases
}

var _ solve.Executor = (*executor)(nil)

// Source implements solve.Executor.
func (e *executor) Source(ctx context.Context, v *llb.Vertex, report solve.Reporter) (solve.Source, error) {
	if e.own == nil {
		return e.sources.Source(ctx, v, report)
	}
	// Registry logins, certificates and the git program are files of the container
	// itself. They must be in place here, and also if the source is fetched later, while
	// steps run.
	release, err := e.own()
	if err != nil {
		return solve.Source{}, err
	}
	defer release()
	src, err := e.sources.Source(ctx, v, report)
	return fetchedWithOwn(src, e.own), err
}

// fetchedWithOwn returns src with functions that call own before they fetch files, so
// that the container's own files are in place.
func fetchedWithOwn(src solve.Source, own func() (func(), error)) solve.Source {
	if fetch := src.Fetch; fetch != nil {
		src.Fetch = func(ctx context.Context, report solve.Reporter) (string, error) {
			return withOwn(own, func() (string, error) { return fetch(ctx, report) })
		}
	}
	if open := src.Open; open != nil {
		src.Open = func(ctx context.Context, report solve.Reporter) (solve.Snapshot, error) {
			return withOwn(own, func() (solve.Snapshot, error) { return open(ctx, report) })
		}
	}
	return src
}

// withOwn calls f while the container's own files are in place.
func withOwn[T any](own func() (func(), error), f func() (T, error)) (T, error) {
	release, err := own()
	if err != nil {
		var none T
		return none, err
	}
	defer release()
	return f()
}

// LayerExists implements solve.Executor.
func (e *executor) LayerExists(id string) bool {
	there, err := e.keeper.Layer(id)
	if err != nil {
		e.logger.Warn("a result of the cache cannot be used", "layer", id, "error", err)
	}
	return there
}

// View implements solve.Executor.
func (e *executor) View(ctx context.Context, v *llb.Vertex, input int, snap solve.Snapshot) (*local.Tree, error) {
	var paths []string
	if v.File != nil {
		paths = readsFrom(v.File, input)
	}
	dir, err := e.mounts.View(snap.Layer, paths...)
	if err != nil {
		return nil, err
	}
	o := local.Options{Dir: dir, KeepOwners: true}
	if owners := e.mounts.Owners(); owners != nil {
		o.OwnerOf = owners.OwnerOf
	}
	return local.Open(ctx, o)
}

// Prepare implements solve.Executor.
func (e *executor) Prepare(ctx context.Context, v *llb.Vertex) error {
	if v.Exec == nil {
		return nil
	}
	return e.run.Prepare(ctx, v)
}

// Run implements solve.Executor.
func (e *executor) Run(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot, report solve.Reporter) (solve.Snapshot, error) {
	kept := e.keeper.begin()
	snap, err := e.carryOut(ctx, v, inputs, report)
	// If layers were removed while the step ran, it may have seen only some of their
	// files.
	if keepErr := kept(); err == nil {
		err = keepErr
	}
	return snap, err
}

func (e *executor) carryOut(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot, report solve.Reporter) (solve.Snapshot, error) {
	inputs, err := e.withBases(ctx, v, inputs)
	if err == nil {
		inputs, err = settle(ctx, v, inputs)
	}
	if err != nil {
		return solve.Snapshot{}, err
	}
	switch {
	case v.Exec != nil:
		draft, err := e.run.Run(ctx, v, inputs, report)
		if err != nil {
			return solve.Snapshot{}, err
		}
		return solve.Snapshot{Draft: draft}, nil
	case v.File != nil:
		return e.file(ctx, v, inputs)
	case v.Merge != nil:
		return e.merge(ctx, v, inputs)
	}
	return solve.Snapshot{}, fmt.Errorf("the operation of %q is not known", v.Name)
}

func (e *executor) snapshot(layer storage.Layer) (solve.Snapshot, error) {
	chain, err := e.chain(layer.ID)
	return solve.Snapshot{Layer: layer.ID, Chain: chain}, err
}

func (e *executor) chain(id string) (digest.Digest, error) {
	layers, err := e.store.Chain(id)
	if err != nil {
		return "", err
	}
	ids := make([]digest.Digest, len(layers))
	for i, l := range layers {
		ids[i] = l.DiffID
	}
	return identity.ChainID(ids), nil
}

// file carries out operations on files, for example COPY, ADD and WORKDIR, on top of
// their base.
func (e *executor) file(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot) (solve.Snapshot, error) {
	from := baseInput(v.File, len(inputs))
	var base rootfs.Base
	if from >= 0 {
		base = exec.Base(inputs[from])
	}
	temp, err := e.mounts.NewDir("file")
	if err != nil {
		return solve.Snapshot{}, err
	}
	roots, err := e.fileInputs(v.File, inputs, from)
	if err != nil {
		return solve.Snapshot{}, err
	}
	draft, err := e.mounts.CreateFiles(ctx, base, looksAt(v.File), func(ctx context.Context, root string) error {
		o := fileop.Options{Dest: root, Inputs: roots, TempDir: temp, Part: e.mounts.Part(), Logger: e.logger}
		if owners := e.mounts.Owners(); owners != nil {
			o.Chown, o.OwnerOf, o.Mknod = owners.Chown, owners.OwnerOf, owners.Mknod
		}
		return fileop.Run(ctx, v.File, o)
	})
	if err != nil {
		return solve.Snapshot{}, err
	}
	return solve.Snapshot{Draft: draft}, nil
}

// fileInputs makes the inputs of an operation readable. If no files are copied from the
// base, it is read in the root directory that the operation writes to, and needs no view
// of its own.
func (e *executor) fileInputs(op *pb.FileOp, inputs []solve.Snapshot, base int) ([]fileop.Input, error) {
	roots := make([]fileop.Input, len(inputs))
	for i, in := range inputs {
		if i == base && !copiesFrom(op, i) {
			continue
		}
		if in.Tree != nil {
			roots[i].Tree = in.Tree
			continue
		}
		var err error
		if roots[i].Root, err = e.mounts.View(in.Layer, readsFrom(op, i)...); err != nil {
			return nil, err
		}
	}
	return roots, nil
}

// readsFrom returns the paths of an input that an operation reads. They include the files
// of users and groups. nil means that the operation may read any path.
func readsFrom(op *pb.FileOp, input int) []string {
	paths := []string{"/etc/passwd", "/etc/group"}
	for _, a := range op.GetActions() {
		c := a.GetCopy()
		if c == nil || int(a.GetSecondaryInput()) != input {
			continue
		}
		src := path.Join("/", c.GetSrc())
		if i := strings.IndexAny(src, `*?[\`); c.GetAllowWildcard() && i >= 0 {
			src = path.Dir(src[:i+1])
		}
		if src == "/" {
			return nil
		}
		paths = append(paths, src)
	}
	return paths
}

// looksAt returns the paths of the base that an operation must see. They include the
// files of users and groups, which are looked up in the base too. nil means all paths.
func looksAt(op *pb.FileOp) []string {
	paths := []string{"/etc/passwd", "/etc/group"}
	for _, a := range op.GetActions() {
		switch act := a.GetAction().(type) {
		case *pb.FileAction_Copy:
			paths = append(paths, act.Copy.GetDest())
		case *pb.FileAction_Mkdir:
			paths = append(paths, act.Mkdir.GetPath())
		case *pb.FileAction_Mkfile:
			paths = append(paths, act.Mkfile.GetPath())
		default:
			return nil
		}
	}
	return paths
}

// baseInput returns the index of the input that the operation starts from, or -1 if it
// starts from an empty file system. The actions that lead to the output form a chain:
// each action names the action before it, and the first action names an input.
func baseInput(op *pb.FileOp, inputs int) int {
	actions := op.GetActions()
	last := slices.IndexFunc(actions, func(a *pb.FileAction) bool { return a.GetOutput() == 0 })
	for last >= 0 {
		in := int(actions[last].GetInput())
		if in < inputs {
			return in
		}
		last = in - inputs
	}
	return -1
}

func copiesFrom(op *pb.FileOp, input int) bool {
	return slices.ContainsFunc(op.GetActions(), func(a *pb.FileAction) bool {
		return a.GetCopy() != nil && int(a.GetSecondaryInput()) == input
	})
}

// merge grafts the layers of all further inputs on top of the first input (COPY --link).
func (e *executor) merge(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot) (solve.Snapshot, error) {
	var result solve.Snapshot
	for i, in := range v.Merge.GetInputs() {
		if in.GetInput() < 0 {
			continue
		}
		snap := inputs[in.GetInput()]
		if i == 0 || result.Layer == "" {
			result = snap
			continue
		}
		layers, err := e.store.Chain(snap.Layer)
		if err != nil {
			return solve.Snapshot{}, err
		}
		for _, l := range layers {
			grafted, err := e.mounts.Graft(ctx, result.Layer, l.ID)
			if err != nil {
				return solve.Snapshot{}, err
			}
			if result, err = e.snapshot(grafted); err != nil {
				return solve.Snapshot{}, err
			}
		}
	}
	return result, nil
}
