package builder

import (
	"context"
	"slices"
	"sync"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/fileop"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/builder/solve"
	"github.com/shale-build/shale/builder/source/local"
)

// bases holds the layers that are made of files outside the store. Such files are a
// directory, a repository or an archive that replaces a stage or an image
// (--build-context base=DIR and FROM base). Each is turned into a layer once per build.
type bases struct {
	mu     sync.Mutex
	layers map[*local.Tree]func() (solve.Snapshot, error)
}

// base returns snap as a snapshot that can be the parent of a layer. If snap is a tree of
// files outside the store, base copies the files into a new layer.
func (e *executor) base(ctx context.Context, snap solve.Snapshot) (solve.Snapshot, error) {
	if snap.Tree == nil {
		return snap, nil
	}
	e.bases.mu.Lock()
	if e.bases.layers == nil {
		e.bases.layers = map[*local.Tree]func() (solve.Snapshot, error){}
	}
	once := e.bases.layers[snap.Tree]
	if once == nil {
		once = sync.OnceValues(func() (solve.Snapshot, error) { return e.layerOf(ctx, snap.Tree) })
		e.bases.layers[snap.Tree] = once
	}
	e.bases.mu.Unlock()
	return once()
}

func (e *executor) layerOf(ctx context.Context, tree *local.Tree) (solve.Snapshot, error) {
	draft, err := e.mounts.CreateFiles(ctx, rootfs.Base{}, nil, func(ctx context.Context, root string) error {
		_, err := fileop.Materialize(ctx, tree, "/", root, fileop.Options{Logger: e.logger})
		return err
	})
	if err != nil {
		return solve.Snapshot{}, err
	}
	return solve.Snapshot{Draft: draft}.Settled(ctx)
}

// settle waits until the drafts among inputs are committed, and returns inputs. It does
// not wait for an input that v only builds on: the files of a draft are complete,
// although its layer is not in the store yet.
func settle(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot) ([]solve.Snapshot, error) {
	for i, in := range inputs {
		if in.Draft == nil || onlyBuiltOn(v, i, len(inputs)) {
			continue
		}
		var err error
		if inputs[i], err = in.Settled(ctx); err != nil {
			return nil, err
		}
	}
	return inputs, nil
}

// onlyBuiltOn reports whether v uses input i as its base and for no other purpose.
func onlyBuiltOn(v *llb.Vertex, i, inputs int) bool {
	switch {
	case v.Exec != nil:
		used := 0
		for _, m := range v.Exec.GetMounts() {
			if int(m.GetInput()) == i {
				used++
			}
		}
		return used == 1 && slices.Contains(builtOn(v, inputs), i)
	case v.File != nil:
		return i == baseInput(v.File, inputs) && !copiesFrom(v.File, i)
	}
	return false
}

// withBases returns a copy of inputs in which each tree of files that v builds on is
// replaced by a layer.
func (e *executor) withBases(ctx context.Context, v *llb.Vertex, inputs []solve.Snapshot) ([]solve.Snapshot, error) {
	inputs = slices.Clone(inputs)
	for _, i := range builtOn(v, len(inputs)) {
		snap, err := e.base(ctx, inputs[i])
		if err != nil {
			return nil, err
		}
		inputs[i] = snap
	}
	return inputs, nil
}

// builtOn returns the indexes of the inputs whose files become part of the result of v.
func builtOn(v *llb.Vertex, inputs int) []int {
	var list []int
	add := func(i int) {
		if i >= 0 {
			list = append(list, i)
		}
	}
	switch {
	case v.Exec != nil:
		for _, m := range v.Exec.GetMounts() {
			if m.GetDest() == pb.RootMount {
				add(int(m.GetInput()))
			}
		}
	case v.File != nil:
		add(baseInput(v.File, inputs))
	case v.Merge != nil:
		for _, in := range v.Merge.GetInputs() {
			add(int(in.GetInput()))
		}
	}
	return list
}

// stepNames returns the names of the steps that the target of g is made of, from the last
// step to the first.
func stepNames(g *llb.Graph) []string {
	var names []string
	for v := g.Target.Vertex; v != nil; {
		names = append(names, v.Name)
		on := builtOn(v, len(v.Inputs))
		if len(on) == 0 {
			break
		}
		v = v.Inputs[on[0]].Vertex
	}
	return names
}
