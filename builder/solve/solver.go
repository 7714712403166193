package solve

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/explain"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/builder/source/local"
)

// Solver solves the graphs of one build. Graphs that share vertices share
// their results. It is safe for concurrent use.
type Solver struct {
	build   context.Context //nolint:containedctx // see New
	exec    Executor
	index   *cache.Index
	sink    progress.Sink
	logger  *slog.Logger
	abort   context.CancelCauseFunc
	trail   *explain.Store
	imports Imports

	mu    sync.Mutex
	nodes map[digest.Digest]*node
}

// New makes a Solver that takes hits from index and tells sink what happens.
// When a vertex fails it calls abort, which must cancel the context that Solve
// is called with, so that steps running in parallel stop. What was carried out by
// then is kept all the same, as long as build lasts.
func New(build context.Context, exec Executor, index *cache.Index, sink progress.Sink, logger *slog.Logger, abort context.CancelCauseFunc) *Solver {
	return &Solver{build: build, exec: exec, index: index, sink: sink, logger: logger, abort: abort, nodes: map[digest.Digest]*node{}}
}

// Explain makes the Solver keep in trail what steps were made of, and say of each
// why it ran. It is called before Solve.
func (s *Solver) Explain(trail *explain.Store) { s.trail = trail }

// node is what a build knows about one vertex. Each of its steps is taken once.
type node struct {
	v *llb.Vertex

	source      func() (Source, error)
	defKey      func() (cache.Key, error)
	foreseeable func() bool
	result      func() (Snapshot, error)
	display     *display

	// kept is nil unless the vertex has run. It is closed when what came of
	// it is in the store and in the cache, or is known to come to nothing.
	kept  chan struct{}
	draft Draft
}

// Solve yields the snapshot of g's target, in the store. The first vertex that
// fails stops the others, and its error is the one returned. Steps that were
// carried out by then are in the cache.
func (s *Solver) Solve(ctx context.Context, g *llb.Graph) (Snapshot, error) {
	if g.Target.Vertex == nil {
		return Snapshot{}, nil
	}
	n := s.node(ctx, g.Target.Vertex)
	snap, err := n.result()
	if err == nil {
		if snap, err = snap.Settled(ctx); err != nil {
			err = s.fail(n, err)
		}
	}
	s.keptAll()
	if err != nil && ctx.Err() != nil {
		return Snapshot{}, context.Cause(ctx)
	}
	return snap, err
}

// fail ends n with an error that points at its line in the Dockerfile, and
// stops the other vertices. An error that another vertex has ended with
// already passes through unchanged.
func (s *Solver) fail(n *node, err error) error {
	if _, ok := errors.AsType[*vertexError](err); ok {
		return err
	}
	if below, why := s.failedInput(n); below != nil {
		return s.fail(below, why)
	}
	err = brief(err)
	n.display.fail(err)
	err = &vertexError{err: llb.WithSource(err, n.v)}
	s.abort(err)
	return err
}

// failedInput returns an input of n whose layer came to nothing after n had begun
// to build on it, and why.
func (s *Solver) failedInput(n *node) (*node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, in := range n.v.Inputs {
		if m := s.nodes[in.Vertex.Digest]; m != nil && m.draft != nil {
			if err := m.draft.Failed(); err != nil {
				return m, err
			}
		}
	}
	return nil, nil //nolint:nilnil // there may be none
}

// vertexError marks an error that a vertex has ended with.
type vertexError struct{ err error }

func (e *vertexError) Error() string { return e.err.Error() }
func (e *vertexError) Unwrap() error { return e.err }

// node returns the one node of v. The context of the first caller governs it:
// all graphs of a build are solved under the build's own context.
func (s *Solver) node(ctx context.Context, v *llb.Vertex) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.nodes[v.Digest]; ok {
		return n
	}
	n := &node{v: v, display: newDisplay(s.sink, v)}
	n.source = sync.OnceValues(func() (Source, error) { return s.identify(ctx, n) })
	n.defKey = sync.OnceValues(func() (cache.Key, error) { return s.definitionKey(ctx, n) })
	n.foreseeable = sync.OnceValue(func() bool { return s.foreseeable(ctx, v) })
	n.result = sync.OnceValues(func() (Snapshot, error) { return s.evaluate(ctx, n) })
	s.nodes[v.Digest] = n
	return n
}

func (s *Solver) identify(ctx context.Context, n *node) (Source, error) {
	if n.v.Source == nil {
		return Source{}, nil
	}
	n.display.start()
	src, err := s.exec.Source(ctx, n.v, n.display)
	if err != nil {
		return Source{}, s.fail(n, err)
	}
	if src.Tree != nil {
		n.display.complete(false)
	}
	return src, nil
}

// definitionKey is the key under which the result of n is found without
// looking at its inputs' results.
func (s *Solver) definitionKey(ctx context.Context, n *node) (cache.Key, error) {
	if n.v.Source != nil {
		src, err := n.source()
		if err != nil {
			return "", err
		}
		return cache.NewHasher("source").String(src.Chain.String()).String(src.Salt).String(src.Identity).Key(), nil
	}
	trees, salts, err := s.trees(ctx, n)
	if err != nil {
		return "", err
	}
	dgst, err := key(ctx, n.v, trees, salts, func(i int) (string, error) {
		k, err := s.node(ctx, n.v.Inputs[i].Vertex).defKey()
		return k.String(), err
	})
	if err != nil {
		return "", s.fail(n, err)
	}
	return dgst, nil
}

// foreseeable tells whether the definition key says what n gives: not so when
// n, or a step it builds on, must run again.
func (s *Solver) foreseeable(ctx context.Context, v *llb.Vertex) bool {
	return !v.IgnoreCache && !slices.ContainsFunc(v.Inputs, func(in llb.Output) bool {
		return !s.node(ctx, in.Vertex).foreseeable()
	})
}

// contentKey is the key that follows from what the inputs turned out to be.
func (s *Solver) contentKey(ctx context.Context, n *node, inputs []Snapshot) (cache.Key, error) {
	trees, salts := treesOf(inputs)
	dgst, err := key(ctx, n.v, trees, salts, chainOf(ctx, inputs))
	if err != nil {
		return "", s.fail(n, err)
	}
	return dgst, nil
}

// chainOf identifies inputs by what they turned out to be.
func chainOf(ctx context.Context, inputs []Snapshot) identify {
	return func(i int) (string, error) {
		chain, err := inputs[i].chain(ctx)
		return "chain:" + chain.String(), err
	}
}

// treesOf returns the inputs that lie outside the store, nil for others.
func treesOf(inputs []Snapshot) (trees []*local.Tree, salts []string) {
	for _, in := range inputs {
		trees, salts = append(trees, in.Tree), append(salts, in.Salt)
	}
	return trees, salts
}

// readKey is the key that follows from the content of what n only reads of its
// inputs, whatever else is in them and whenever it was written: a stage that gives
// the same file again does not run what copies it. It is "" when there is nothing
// to gain, or when n will have to say what is wrong.
func (s *Solver) readKey(ctx context.Context, n *node, inputs []Snapshot) cache.Key {
	trees, salts := treesOf(inputs)
	opened := false
	for i, in := range inputs {
		if trees[i] != nil || !onlyRead(n.v, i) {
			continue
		}
		in, err := in.Settled(ctx)
		if err != nil {
			return ""
		}
		tree, err := s.exec.View(ctx, n.v, i, in)
		if err != nil {
			return ""
		}
		defer tree.Close() //nolint:errcheck // only read
		trees[i], salts[i], opened = tree, "in the store", true
	}
	if !opened {
		return ""
	}
	dgst, err := key(ctx, n.v, trees, salts, chainOf(ctx, inputs))
	if err != nil {
		return ""
	}
	return dgst
}

// trees returns the inputs of n that lie outside the store and are at hand, nil
// for others.
func (s *Solver) trees(ctx context.Context, n *node) ([]*local.Tree, []string, error) {
	trees := make([]*local.Tree, len(n.v.Inputs))
	salts := make([]string, len(n.v.Inputs))
	for i, in := range n.v.Inputs {
		if in.Vertex.Source == nil {
			continue
		}
		src, err := s.node(ctx, in.Vertex).source()
		if err != nil {
			return nil, nil, err
		}
		trees[i], salts[i] = src.Tree, src.Salt
	}
	return trees, salts, nil
}

// evaluate finds or makes the result of n.
func (s *Solver) evaluate(ctx context.Context, n *node) (Snapshot, error) {
	if err := context.Cause(ctx); err != nil {
		return Snapshot{}, err
	}
	if n.v.Source != nil {
		return s.fetch(ctx, n)
	}
	def, err := n.defKey()
	if err != nil {
		return Snapshot{}, err
	}
	if n.foreseeable() {
		if snap, ok := s.lookup(ctx, def); ok {
			s.showCached(ctx, n)
			return snap, nil
		}
	}
	inputs, err := s.inputs(ctx, n)
	if err != nil {
		return Snapshot{}, err
	}
	k := keys{definition: def}
	if k.operation, err = operationKey(ctx, n.v); err != nil {
		return Snapshot{}, s.fail(n, err)
	}
	if s.mayBeKnown(n, k, inputs) {
		if snap, ok, err := s.cutOff(ctx, n, inputs, &k); ok || err != nil {
			return snap, err
		}
	}
	return s.run(ctx, n, inputs, k)
}

// find looks for the result of n under one of its keys and, when it is there,
// records it under all.
func (s *Solver) find(ctx context.Context, n *node, one cache.Key, k keys) (Snapshot, bool) {
	if n.v.IgnoreCache {
		return Snapshot{}, false
	}
	snap, ok := s.lookup(ctx, one)
	if ok {
		s.remember(n, snap, k)
		n.display.decide(decidedCached, "made anew, what it uses is the same as before")
		s.showCached(ctx, n)
	}
	return snap, ok
}

// run carries n out. Its result may be a draft: what is left to do for it is done
// beside what follows.
func (s *Solver) run(ctx context.Context, n *node, inputs []Snapshot, k keys) (Snapshot, error) {
	s.tellWhy(ctx, n, inputs, k.content != "")
	if err := s.exec.Prepare(ctx, n.v); err != nil {
		return Snapshot{}, s.fail(n, err)
	}
	n.display.start()
	snap, err := s.exec.Run(ctx, n.v, inputs, n.display)
	if err != nil {
		return Snapshot{}, s.fail(n, err)
	}
	n.display.complete(false)
	s.mu.Lock()
	n.kept, n.draft = make(chan struct{}), snap.Draft
	s.mu.Unlock()
	if snap.Draft == nil {
		defer close(n.kept)
		return snap, s.keep(ctx, n, snap, inputs, k)
	}
	go func() {
		defer close(n.kept)
		_ = s.keep(s.build, n, snap, inputs, k) // told by fail
	}()
	return snap, nil
}

// changedInput names a file of a context that was not the same when it was
// copied as when its digest was taken: the keys of n do not describe its
// result then.
func (s *Solver) changedInput(ctx context.Context, n *node) (string, error) {
	trees, _, err := s.trees(ctx, n)
	if err != nil {
		return "", err
	}
	for _, tree := range trees {
		if tree == nil {
			continue
		}
		if name := tree.Changed(); name != "" {
			return name, nil
		}
	}
	return "", nil
}

// inputs evaluates all inputs of n in parallel.
func (s *Solver) inputs(ctx context.Context, n *node) ([]Snapshot, error) {
	snaps := make([]Snapshot, len(n.v.Inputs))
	var group errgroup.Group
	for i, in := range n.v.Inputs {
		group.Go(func() error {
			snap, err := s.node(ctx, in.Vertex).result()
			snaps[i] = snap
			return err
		})
	}
	return snaps, group.Wait()
}

// fetch makes a source's files available.
func (s *Solver) fetch(ctx context.Context, n *node) (Snapshot, error) {
	src, err := n.source()
	if err != nil {
		return Snapshot{}, err
	}
	if src.Tree != nil {
		return Snapshot{Tree: src.Tree, Dir: src.Dir, Salt: src.Salt}, nil
	}
	if src.Open != nil {
		snap, err := src.Open(ctx, n.display)
		if err != nil {
			return Snapshot{}, s.fail(n, err)
		}
		n.display.complete(false)
		return snap, nil
	}
	layer, err := src.Fetch(ctx, n.display)
	if err != nil {
		return Snapshot{}, s.fail(n, err)
	}
	n.display.complete(false)
	return Snapshot{Layer: layer, Chain: src.Chain}, nil
}

// lookup finds a result in the index, or else in what is imported; from there on
// it is in the index as well.
func (s *Solver) lookup(ctx context.Context, k cache.Key) (Snapshot, bool) {
	rec, ok := s.index.Get(k)
	if ok && (rec.Layer == "" || s.exec.LayerExists(rec.Layer)) {
		return Snapshot{Layer: rec.Layer, Chain: rec.Chain}, true
	}
	if s.imports == nil {
		return Snapshot{}, false
	}
	if rec, ok = s.imports.Find(ctx, k); !ok {
		return Snapshot{}, false
	}
	if err := s.index.Put(k, rec); err != nil {
		s.logger.Warn("an imported result was not recorded in the cache", "error", err)
	}
	return Snapshot{Layer: rec.Layer, Chain: rec.Chain}, true
}

// Import makes the Solver look in imports for what the index does not have. It is
// called before Solve.
func (s *Solver) Import(imports Imports) { s.imports = imports }

// Results returns the topmost layers of all steps of g whose results are known,
// each once. It is called after Solve.
func (s *Solver) Results(ctx context.Context, g *llb.Graph) []string {
	var layers []string
	for _, v := range g.Vertices {
		if layer := s.known(ctx, v); layer != "" && !slices.Contains(layers, layer) {
			layers = append(layers, layer)
		}
	}
	return layers
}

// Reached returns the topmost layer that is known of those that the target of g is made
// of, or would have been; "" for none. below names the input that a vertex makes its
// layer on, -1 for none. It is called after Solve.
func (s *Solver) Reached(ctx context.Context, g *llb.Graph, below func(v *llb.Vertex) int) string {
	for v := g.Target.Vertex; v != nil; {
		if layer := s.known(ctx, v); layer != "" {
			return layer
		}
		i := below(v)
		if i < 0 || i >= len(v.Inputs) {
			return ""
		}
		v = v.Inputs[i].Vertex
	}
	return ""
}

// known returns the topmost layer that the step v gave in this build, "" for none.
func (s *Solver) known(ctx context.Context, v *llb.Vertex) string {
	n := s.node(ctx, v)
	if v.Source != nil || !n.display.succeeded() {
		return ""
	}
	def, err := n.defKey()
	if err != nil {
		return ""
	}
	rec, ok := s.index.Get(def)
	if !ok || rec.Layer == "" || !s.exec.LayerExists(rec.Layer) {
		return ""
	}
	return rec.Layer
}

// remember records a result under its keys. A cache that cannot be written
// makes the next build slower, not this one wrong.
func (s *Solver) remember(n *node, snap Snapshot, k keys) {
	rec := cache.Record{Layer: snap.Layer, Chain: snap.Chain, Created: time.Now().UTC(), Description: n.v.Name}
	for _, one := range []cache.Key{k.operation, k.definition, k.content, k.read} {
		if one == "" {
			continue
		}
		if err := s.index.Put(one, rec); err != nil {
			s.logger.Warn("the result of a step was not recorded in the cache", "step", n.v.Name, "error", err)
		}
	}
}

// showCached tells that n came from the cache, and with it all below it that
// nobody had to look at.
func (s *Solver) showCached(ctx context.Context, n *node) {
	if n.display.completed() {
		return
	}
	for _, in := range n.v.Inputs {
		s.showCached(ctx, s.node(ctx, in.Vertex))
	}
	if n.v.Source == nil {
		n.display.decide(decidedCached, "unchanged")
	}
	n.display.complete(true)
}
