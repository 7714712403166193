package solve

import (
	"context"
	"slices"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/source/local"
)

// keys are all under which a result is recorded; "" for what there is not.
type keys struct {
	// operation is what the vertex does, whatever on. Nothing is taken from
	// the cache by it: it tells that there may be something to take.
	operation, definition, content, read cache.Key
}

// operationKey is the key of what v does, whatever its inputs are.
func operationKey(ctx context.Context, v *llb.Vertex) (cache.Key, error) {
	any, err := key(ctx, v, make([]*local.Tree, len(v.Inputs)), make([]string, len(v.Inputs)), func(int) (string, error) {
		return "any", nil
	})
	if err != nil {
		return "", err
	}
	return cache.NewHasher("operation").String(any.String()).Key(), nil
}

// mayBeKnown tells whether it pays to find out what the inputs turned out to be
// before n runs. When they are still being packed it does not if the operation was
// never carried out, on whatever: n runs beside that.
func (s *Solver) mayBeKnown(n *node, k keys, inputs []Snapshot) bool {
	if !slices.ContainsFunc(inputs, func(in Snapshot) bool { return in.Draft != nil }) {
		return true
	}
	if n.v.IgnoreCache {
		return false
	}
	_, here := s.index.Get(k.operation)
	return here || s.imports != nil && s.imports.Has(k.operation)
}

// cutOff looks for the result of n by what its inputs turned out to be.
func (s *Solver) cutOff(ctx context.Context, n *node, inputs []Snapshot, k *keys) (snap Snapshot, ok bool, err error) {
	if k.content, err = s.contentKey(ctx, n, inputs); err != nil {
		return Snapshot{}, false, err
	}
	if snap, ok = s.find(ctx, n, k.content, *k); ok {
		return snap, true, nil
	}
	if k.read = s.readKey(ctx, n, inputs); k.read != "" {
		snap, ok = s.find(ctx, n, k.read, *k)
	}
	return snap, ok, nil
}

// keep waits until what n gave is in the store, and records it in the cache with
// what it was made of.
func (s *Solver) keep(ctx context.Context, n *node, snap Snapshot, inputs []Snapshot, k keys) error {
	snap, err := snap.Settled(ctx)
	if err != nil {
		return s.fail(n, err)
	}
	if changed, err := s.changedInput(ctx, n); err != nil || changed != "" {
		s.logger.Warn("a file changed while it was read; the step will run again next time", "step", n.v.Name, "file", changed)
		return err
	}
	if k.content == "" {
		if k.content, err = s.contentKey(ctx, n, inputs); err != nil {
			return err
		}
		k.read = s.readKey(ctx, n, inputs)
	}
	s.remember(n, snap, k)
	s.saveFacts(ctx, n, inputs)
	return nil
}

// keptAll waits for what is still to be done for steps that were carried out.
func (s *Solver) keptAll() {
	s.mu.Lock()
	var kept []chan struct{}
	for _, n := range s.nodes {
		if n.kept != nil {
			kept = append(kept, n.kept)
		}
	}
	s.mu.Unlock()
	for _, k := range kept {
		<-k
	}
}
