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

// Solver solves the graphs of one build. If graphs have common vertices, these run only
// once. It is safe for concurrent use.
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

// New returns a Solver that looks up results in index and reports progress to sink. If a
// vertex fails, the Solver calls abort. abort must cancel the context that Solve is
// called with, so that parallel steps stop. Results that are complete at that time are
// still committed and recorded. This ends when build is cancelled.
func New(build context.Context, exec Executor, index *cache.Index, sink progress.Sink, logger *slog.Logger, abort context.CancelCauseFunc) *Solver {
	return &Solver{build: build, exec: exec, index: index, sink: sink, logger: logger, abort: abort, nodes: map[digest.Digest]*node{}}
}

// Explain makes the Solver save the facts of each step in trail and report why each step
// runs. It must be called before Solve.
func (s *Solver) Explain(trail *explain.Store) { s.trail = trail }

// node is the state of one vertex in a build. Each of its functions is evaluated once.
type node struct {
	v *llb.Vertex

	source      func() (Source, error)
	defKey      func() (cache.Key, error)
	foreseeable func() bool
	result      func() (Snapshot, error)
	display     *display

	// kept is nil until the vertex has run. It is closed when the result is in the store
	// and in the cache, or if that failed.
	kept  chan struct{}
	draft Draft
}

// Solve solves g and returns the snapshot of its target. The snapshot is in the store. If
// a vertex fails, the others are stopped, and Solve returns the error of that vertex.
// Results of steps that were complete by then are in the cache. If ctx is cancelled,
// Solve returns the cause of the cancellation.
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

// fail ends n with an error that points at its line in the Dockerfile, and stops the
// other vertices. If err is already the error of another vertex, fail returns it
// unchanged.
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

// failedInput returns an input of n whose draft failed after n had started to build on
// it, and the error of that draft. It returns nil if no input failed.
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

// vertexError marks the error of a vertex that fail has ended.
type vertexError struct{ err error }

func (e *vertexError) Error() string { return e.err.Error() }
func (e *vertexError) Unwrap() error { return e.err }

// node returns the node of v and creates it if necessary. It uses the context of the
// first caller, because all graphs of a build are solved with the same context.
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

// definitionKey returns the key under which the result of n can be found without the
// results of its inputs.
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

// foreseeable reports whether the definition key of v identifies its result. This is
// false if v, or any step below it, must run again.
func (s *Solver) foreseeable(ctx context.Context, v *llb.Vertex) bool {
	return !v.IgnoreCache && !slices.ContainsFunc(v.Inputs, func(in llb.Output) bool {
		return !s.node(ctx, in.Vertex).foreseeable()
	})
}

// contentKey returns the key that depends on the content of the inputs.
func (s *Solver) contentKey(ctx context.Context, n *node, inputs []Snapshot) (cache.Key, error) {
	trees, salts := treesOf(inputs)
	dgst, err := key(ctx, n.v, trees, salts, chainOf(ctx, inputs))
	if err != nil {
		return "", s.fail(n, err)
	}
	return dgst, nil
}

// chainOf identifies inputs by their chainIDs. It waits for inputs that are being packed.
func chainOf(ctx context.Context, inputs []Snapshot) identify {
	return func(i int) (string, error) {
		chain, err := inputs[i].chain(ctx)
		return "chain:" + chain.String(), err
	}
}

// treesOf returns the trees of the inputs outside the store, and nil for other inputs.
func treesOf(inputs []Snapshot) (trees []*local.Tree, salts []string) {
	for _, in := range inputs {
		trees, salts = append(trees, in.Tree), append(salts, in.Salt)
	}
	return trees, salts
}

// readKey returns a key that depends only on the content of the files that n reads, for
// each input that n only reads. Other files of these inputs and modification times do not
// count. For example, if a stage writes the same file again, the step that copies it does
// not run again. readKey returns "" if n has no such input. It also returns "" after an
// error, because the same error occurs again when n runs.
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

// trees returns the trees of those inputs of n that lie outside the store and need no
// fetch. For other inputs the tree is nil.
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

// evaluate returns the result of n from the cache, or runs n.
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

// find looks for the result of n under the key one. If the result is there, find records
// it under all keys of k.
func (s *Solver) find(ctx context.Context, n *node, one cache.Key, k keys) (Snapshot, bool) {
	if n.v.IgnoreCache {
		return Snapshot{}, false
	}
	snap, ok := s.lookup(ctx, one)
	if ok {
		s.remember(n, snap, k)
		n.display.decide(decidedCached, "made anew, its inputs are the same as before")
		s.showCached(ctx, n)
	}
	return snap, ok
}

// run executes n. Its result may be a draft. A draft is committed and recorded while the
// next steps run.
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
		_ = s.keep(s.build, n, snap, inputs, k) // fail has reported the error
	}()
	return snap, nil
}

// changedInput returns the name of a file in a build context that changed between the
// computation of its digest and its copy. In that case, the keys of n do not describe its
// result. It returns "" if there is no such file.
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

// fetch makes the files of a source available.
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

// lookup looks for a result in the index and then in the imports. A result from the
// imports is recorded in the index.
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

// Import makes the Solver look in imports for results that are not in the index. It must
// be called before Solve.
func (s *Solver) Import(imports Imports) { s.imports = imports }

// Results returns the topmost layer of each step of g whose result is known, without
// duplicates. It must be called after Solve.
func (s *Solver) Results(ctx context.Context, g *llb.Graph) []string {
	var layers []string
	for _, v := range g.Vertices {
		if layer := s.known(ctx, v); layer != "" && !slices.Contains(layers, layer) {
			layers = append(layers, layer)
		}
	}
	return layers
}

// Reached returns a layer of the target of g, for a build that may have failed. It starts
// at the target and follows the input that each vertex builds its layer on, until it
// finds a step with a known result. It returns the topmost layer of that step, or "" if
// there is none. below returns the number of the input that v builds on, or -1 if there
// is none. Reached must be called after Solve.
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

// known returns the topmost layer of the step v in this build, or "" if it is not known.
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

// remember records a result under all its keys. If the cache cannot be written, only a
// warning is logged, because this makes the next build slower but the result is still
// correct.
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

// showCached reports that n came from the cache, and also all steps below n that were not
// evaluated.
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
