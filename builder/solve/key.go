package solve

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/fileop"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/source/local"
)

// onlyRead tells whether v reads input i and does not pass it on: what is copied
// from, or mounted read-only.
func onlyRead(v *llb.Vertex, i int) bool {
	if v.File != nil {
		return !slices.ContainsFunc(v.File.GetActions(), func(a *pb.FileAction) bool { return int(a.GetInput()) == i })
	}
	used := false
	for _, m := range v.Exec.GetMounts() {
		if int(m.GetInput()) != i {
			continue
		}
		// What is written to a mount without an output is thrown away.
		if m.GetOutput() >= 0 || m.GetMountType() != pb.MountType_BIND {
			return false
		}
		used = true
	}
	return used
}

// identify gives the identity of a vertex's input number i for a key: its
// definition key or its chainID. It is not asked about inputs that are trees.
type identify func(i int) (string, error)

// key hashes an operation with the identities of its inputs. Where an input is
// a tree, the digest of what the operation reads of it is used instead.
func key(ctx context.Context, v *llb.Vertex, trees []*local.Tree, salts []string, id identify) (cache.Key, error) {
	k := keying{ctx: ctx, v: v, trees: trees, salts: salts, id: id}
	switch {
	case v.Exec != nil:
		return k.exec()
	case v.File != nil:
		return k.file()
	case v.Merge != nil:
		return k.merge()
	}
	return "", fmt.Errorf("no cache key for the operation of %q", v.Name)
}

type keying struct {
	ctx   context.Context //nolint:containedctx // lives for one call of key
	v     *llb.Vertex
	trees []*local.Tree
	salts []string
	id    identify
}

// exec leaves out what must not count: the values of proxy variables, the
// addresses of extra hosts, resource limits, and the place and content of
// cache mounts. (BuildKit's solver/llbsolver/ops/exec.go draws the same line.)
func (k keying) exec() (cache.Key, error) {
	op := k.v.Exec
	meta := op.GetMeta()
	h := cache.NewHasher("exec")
	h.Strings(meta.GetArgs()).Strings(meta.GetEnv())
	h.String(meta.GetCwd()).String(meta.GetUser()).String(meta.GetHostname())
	h.Int(int64(op.GetNetwork())).Int(int64(op.GetSecurity()))
	var hosts []string
	for _, host := range meta.GetExtraHosts() {
		hosts = append(hosts, host.GetHost())
	}
	h.Strings(hosts)
	h.Int(int64(len(op.GetSecretenv())))
	for _, s := range op.GetSecretenv() {
		h.String(s.GetID()).String(s.GetName()).Bool(s.GetOptional())
	}
	h.Int(int64(len(op.GetCdiDevices())))
	for _, d := range op.GetCdiDevices() {
		h.String(d.GetName()).Bool(d.GetOptional())
	}
	platformKey(h, k.v)
	h.Int(int64(len(op.GetMounts())))
	for _, m := range op.GetMounts() {
		if err := k.mount(h, m); err != nil {
			return "", err
		}
	}
	return h.Key(), nil
}

func (k keying) mount(h *cache.Hasher, m *pb.Mount) error {
	h.String(m.GetDest()).Int(int64(m.GetMountType())).Bool(m.GetReadonly()).Int(m.GetOutput())
	if m.GetMountType() == pb.MountType_SECRET || m.GetMountType() == pb.MountType_SSH {
		s, a := m.GetSecretOpt(), m.GetSSHOpt()
		h.String(s.GetID()).String(a.GetID()).Bool(s.GetOptional()).Bool(a.GetOptional())
		for _, n := range []uint32{s.GetUid(), s.GetGid(), s.GetMode(), a.GetUid(), a.GetGid(), a.GetMode()} {
			h.Int(int64(n))
		}
		return nil
	}
	if m.GetInput() < 0 {
		h.String("none")
		return nil
	}
	return k.input(h, int(m.GetInput()), []local.Selection{{Path: m.GetSelector()}})
}

func (k keying) file() (cache.Key, error) {
	h := cache.NewHasher("file")
	desc, err := fileop.Key(k.v.File)
	if err != nil {
		return "", fmt.Errorf("describe %q: %w", k.v.Name, err)
	}
	h.Bytes(desc)
	platformKey(h, k.v)
	h.Int(int64(len(k.v.Inputs)))
	for i := range k.v.Inputs {
		sel, err := fileop.Selections(k.v.File, i)
		if err != nil {
			return "", err
		}
		if err := k.input(h, i, sel); err != nil {
			return "", err
		}
	}
	return h.Key(), nil
}

func (k keying) merge() (cache.Key, error) {
	h := cache.NewHasher("merge")
	h.Int(int64(len(k.v.Merge.GetInputs())))
	for _, in := range k.v.Merge.GetInputs() {
		if in.GetInput() < 0 {
			h.String("none")
			continue
		}
		if err := k.input(h, int(in.GetInput()), []local.Selection{{Path: "/"}}); err != nil {
			return "", err
		}
	}
	return h.Key(), nil
}

// input adds one input: a tree by the content of what is read of it, anything
// else by its identity and the paths that are read.
func (k keying) input(h *cache.Hasher, i int, reads []local.Selection) error {
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

func platformKey(h *cache.Hasher, v *llb.Vertex) {
	if v.Platform == nil {
		h.String("")
		return
	}
	h.String(v.Platform.OS).String(v.Platform.Architecture).String(v.Platform.Variant).String(v.Platform.OSVersion)
}
