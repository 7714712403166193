package policy

import (
	"context"
	"fmt"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// Definition applies the rules to every source of a graph. It returns def itself if no
// rule changes a source. An error contains the position of the source in the Dockerfile.
func (p *Policy) Definition(ctx context.Context, def *pb.Definition) (*pb.Definition, error) {
	if p == nil || def == nil {
		return def, nil
	}
	r := &rewriter{def: def, ops: map[digest.Digest]*pb.Op{}, renamed: map[digest.Digest]digest.Digest{}}
	changed := false
	for i, dt := range def.Def {
		op := new(pb.Op)
		if err := op.Unmarshal(dt); err != nil {
			return nil, fmt.Errorf("unmarshal operation %d: %w", i, err)
		}
		dgst := digest.FromBytes(dt)
		r.order, r.ops[dgst] = append(r.order, dgst), op
		src := op.GetSource()
		if src == nil {
			continue
		}
		before := src.CloneVT()
		if err := p.Source(ctx, src); err != nil {
			return nil, r.locate(dgst, fmt.Errorf("failed to load LLB: error evaluating the source policy: %w", err))
		}
		changed = changed || !src.EqualVT(before)
	}
	if !changed {
		return def, nil
	}
	return r.rewrite()
}

// rewriter makes a definition from changed operations. Each operation that depends on a
// changed one, directly or not, gets a new digest.
type rewriter struct {
	def     *pb.Definition
	order   []digest.Digest
	ops     map[digest.Digest]*pb.Op
	renamed map[digest.Digest]digest.Digest
	data    map[digest.Digest][]byte
}

func (r *rewriter) rewrite() (*pb.Definition, error) {
	r.data = map[digest.Digest][]byte{}
	out := &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}
	for _, dgst := range r.order {
		if err := r.visit(dgst); err != nil {
			return nil, err
		}
		out.Def = append(out.Def, r.data[dgst])
		if m, ok := r.def.Metadata[string(dgst)]; ok {
			out.Metadata[string(r.renamed[dgst])] = m
		}
	}
	if src := r.def.Source; src != nil {
		out.Source = &pb.Source{Infos: src.Infos, Locations: map[string]*pb.Locations{}}
		for dgst, l := range src.Locations {
			if renamed, ok := r.renamed[digest.Digest(dgst)]; ok {
				dgst = string(renamed)
			}
			out.Source.Locations[dgst] = l
		}
	}
	return out, nil
}

// visit computes the new digest of an operation after those of its inputs. The recursion
// is as deep as the graph, which is limited because the front end made it.
func (r *rewriter) visit(dgst digest.Digest) error {
	if _, ok := r.renamed[dgst]; ok {
		return nil
	}
	op, ok := r.ops[dgst]
	if !ok {
		return fmt.Errorf("an operation has an input %s that is not there", dgst)
	}
	for _, in := range op.GetInputs() {
		old := digest.Digest(in.GetDigest())
		if err := r.visit(old); err != nil {
			return err
		}
		in.Digest = string(r.renamed[old])
	}
	data, err := op.Marshal()
	if err != nil {
		return fmt.Errorf("marshal operation: %w", err)
	}
	r.data[dgst], r.renamed[dgst] = data, digest.FromBytes(data)
	return nil
}

// locate adds to err the lines of the Dockerfile from which the operation was made.
func (r *rewriter) locate(dgst digest.Digest, err error) error {
	locations := r.def.GetSource().GetLocations()[string(dgst)].GetLocations()
	infos := r.def.GetSource().GetInfos()
	for _, l := range locations {
		if i := int(l.GetSourceIndex()); i >= 0 && i < len(infos) && infos[i] != nil {
			err = errdefs.WithSource(err, &errdefs.Source{Info: infos[i], Ranges: l.GetRanges()})
		}
	}
	return err
}
