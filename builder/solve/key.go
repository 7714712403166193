package solve

import (
	"context"
	"slices"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/explain"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/source/local"
)

// onlyRead reports whether v only reads input i, so that input i is not part of its
// result. This is true for the source of a copy and for a bind mount without an output.
func onlyRead(v *llb.Vertex, i int) bool {
	if v.File != nil {
		return !slices.ContainsFunc(v.File.GetActions(), func(a *pb.FileAction) bool { return int(a.GetInput()) == i })
	}
	used := false
	for _, m := range v.Exec.GetMounts() {
		if int(m.GetInput()) != i {
			continue
		}
		// Changes in a bind mount without an output are discarded.
		if m.GetOutput() >= 0 || m.GetMountType() != pb.MountType_BIND {
			return false
		}
		used = true
	}
	return used
}

// identify returns the identity of input number i of a vertex for a key: its definition
// key or its chainID. It is not called for inputs that are trees.
type identify func(i int) (string, error)

// key returns the hash of an operation and the identities of its inputs. If an input is a
// tree, its identity is the digest of the files that the operation reads.
func key(ctx context.Context, v *llb.Vertex, trees []*local.Tree, salts []string, id identify) (cache.Key, error) {
	k := keying{ctx: ctx, v: v, trees: trees, salts: salts, id: id, hash: cache.NewHasher(kindOf(v))}
	if err := describe(v, k); err != nil {
		return "", err
	}
	return k.hash.Key(), nil
}

// keying is the visitor that computes a key.
type keying struct {
	ctx   context.Context //nolint:containedctx // lives for one call of key
	v     *llb.Vertex
	trees []*local.Tree
	salts []string
	id    identify
	hash  *cache.Hasher
}

func (k keying) part(_ explain.Kind, _ string, fields ...field) {
	for _, f := range fields {
		f(k.hash)
	}
}

// input adds one input to the key. A tree counts with the content of the files that are
// read. Any other input counts with its identity and the paths that are read.
func (k keying) input(i int, _ explain.Kind, _ string, reads []local.Selection) error {
	h := k.hash
	if tree := k.trees[i]; tree != nil {
		h.String("tree").String(k.salts[i]).Int(int64(len(reads)))
		for _, sel := range reads {
			dgst, err := tree.Digest(k.ctx, sel)
			if err != nil {
				return err
			}
			h.String(sel.String()).String(dgst.String())
		}
		return nil
	}
	id, err := k.id(i)
	if err != nil {
		return err
	}
	h.String("snapshot").Int(int64(k.v.Inputs[i].Index)).String(id).Int(int64(len(reads)))
	for _, sel := range reads {
		h.String(sel.String())
	}
	return nil
}
