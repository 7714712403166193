package solve

import (
	"context"
	"slices"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/source/local"
)

// keys are the keys under which a result is recorded. A key that does not exist is "".
type keys struct {
	// operation identifies the operation without its inputs. It never gives a result from
	// the cache. It only shows that the cache may have a result of this operation.
	operation, definition, content, read cache.Key
}

// operationKey returns the key of the operation of v. It does not depend on the inputs.
func operationKey(ctx context.Context, v *llb.Vertex) (cache.Key, error) {
	any, err := key(ctx, v, make([]*local.Tree, len(v.Inputs)), make([]string, len(v.Inputs)), func(int) (string, error) {
		return "any", nil
	})
	if err != nil {
		return "", err
	}
	return cache.NewHasher("operation").String(any.String()).Key(), nil
}

// mayBeKnown reports whether n waits for the digests of its inputs before it runs. While
// inputs are still being packed, waiting pays off only if the cache has a record of this
// operation on any other input.
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

// cutOff looks for the result of n under the keys that depend on the content of its
// inputs. It stores these keys in k.
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

// keep waits until the result of n is in the store. Then it records the result in the
// cache and saves the facts of n. If a file of a build context changed while n read it,
// nothing is recorded.
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

// keptAll waits until keep has returned for every step that ran.
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
