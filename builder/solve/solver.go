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
// is called with, so that steps running in parallel stop.
func New(exec Executor, index *cache.Index, sink progress.Sink, logger *slog.Logger, abort context.CancelCauseFunc) *Solver {
	return &Solver{exec: exec, index: index, sink: sink, logger: logger, abort: abort, nodes: map[digest.Digest]*node{}}
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
}

// Solve yields the snapshot of g's target. The first vertex that fails stops
// the others, and its error is the one returned.
func (s *Solver) Solve(ctx context.Context, g *llb.Graph) (Snapshot, error) {
	if g.Target.Vertex == nil {
		return Snapshot{}, nil
	}
	snap, err := s.node(ctx, g.Target.Vertex).result()
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
	n.display.fail(err)
	err = &vertexError{err: llb.WithSource(err, n.v)}
	s.abort(err)
	return err
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
	dgst, err := key(ctx, n.v, trees, salts, func(i int) (string, error) {
		return "chain:" + inputs[i].Chain.String(), nil
	})
	if err != nil {
		return "", s.fail(n, err)
	}
	return dgst, nil
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
		tree, err := s.exec.View(ctx, in)
		if err != nil {
			return ""
		}
		defer tree.Close() //nolint:errcheck // only read
		trees[i], salts[i], opened = tree, "in the store", true
	}
	if !opened {
		return ""
	}
	dgst, err := key(ctx, n.v, trees, salts, func(i int) (string, error) {
		return "chain:" + inputs[i].Chain.String(), nil
	})
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
	content, err := s.contentKey(ctx, n, inputs)
	if err != nil {
		return Snapshot{}, err
	}
	keys := []cache.Key{def, content}
	if hit, ok := s.find(ctx, n, content, keys); ok {
		return hit, nil
	}
	if read := s.readKey(ctx, n, inputs); read != "" {
		keys = append(keys, read)
		if hit, ok := s.find(ctx, n, read, keys); ok {
			return hit, nil
		}
	}
	keep := s.follow(ctx, n, inputs)
	snap, err := s.run(ctx, n, inputs, keys)
	if err == nil {
		keep()
	}
	return snap, err
}

// follow tells why n runs, and returns what keeps what it was made of, to be
// called when it has run. A build is not the worse for it when that fails.
func (s *Solver) follow(ctx context.Context, n *node, inputs []Snapshot) (keep func()) {
	if s.trail == nil {
		return func() {}
	}
	facts, err := s.facts(ctx, n, inputs)
	if err != nil {
		s.logger.Debug("what a step is made of is not known", "step", n.v.Name, "error", err)
		return func() {}
	}
	n.display.decide(decidedRan, s.why(n, facts))
	return func() {
		if err := s.trail.Save(slot(n.v), facts); err != nil {
			s.logger.Warn("what a step was made of is not kept", "step", n.v.Name, "error", err)
		}
	}
}

// find looks for the result of n under k and, when it is there, records it under
// all keys.
func (s *Solver) find(ctx context.Context, n *node, k cache.Key, keys []cache.Key) (Snapshot, bool) {
	if n.v.IgnoreCache {
		return Snapshot{}, false
	}
	snap, ok := s.lookup(ctx, k)
	if ok {
		s.remember(n, snap, keys...)
		n.display.decide(decidedCached, "made anew, what it uses is the same as before")
		s.showCached(ctx, n)
	}
	return snap, ok
}

func (s *Solver) run(ctx context.Context, n *node, inputs []Snapshot, keys []cache.Key) (Snapshot, error) {
	n.display.start()
	snap, err := s.exec.Run(ctx, n.v, inputs, n.display)
	if err != nil {
		return Snapshot{}, s.fail(n, err)
	}
	n.display.complete(false)
	if changed, err := s.changedInput(ctx, n); err != nil || changed != "" {
		s.logger.Warn("a file changed while it was read; the step will run again next time", "step", n.v.Name, "file", changed)
		return snap, err
	}
	s.remember(n, snap, keys...)
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
		n := s.node(ctx, v)
		if v.Source != nil || !n.display.completed() {
			continue
		}
		def, err := n.defKey()
		if err != nil {
			continue
		}
		rec, ok := s.index.Get(def)
		if ok && rec.Layer != "" && !slices.Contains(layers, rec.Layer) && s.exec.LayerExists(rec.Layer) {
			layers = append(layers, rec.Layer)
		}
	}
	return layers
}

// remember records a result under its keys. A cache that cannot be written
// makes the next build slower, not this one wrong.
func (s *Solver) remember(n *node, snap Snapshot, keys ...cache.Key) {
	rec := cache.Record{Layer: snap.Layer, Chain: snap.Chain, Created: time.Now().UTC(), Description: n.v.Name}
	for _, k := range keys {
		if err := s.index.Put(k, rec); err != nil {
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
