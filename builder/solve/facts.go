package solve

import (
	"context"
	"regexp"
	"strings"

	"github.com/containerd/platforms"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/explain"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/builder/source/local"
)

// place matches the beginning of a step's name, for example "[build 2/4] ": the stage and
// the number of the step. The total number of steps is not part of a step's slot.
var place = regexp.MustCompile(`^\[(.*?)(\d+)/\d+\] `)

// slot names the position of v in its Dockerfile. It does not depend on the instruction
// at that position.
func slot(v *llb.Vertex) string {
	where := v.Name
	if m := place.FindStringSubmatch(v.Name); m != nil {
		where = strings.TrimSpace(m[1]) + "/" + m[2]
	}
	if v.Platform != nil {
		where += " for " + platforms.FormatAll(*v.Platform)
	}
	return where
}

// tellWhy reports why n runs. If settled is false, inputs may still be being packed, and
// their previous values are assumed. An error is only logged, because it does not affect
// the build.
func (s *Solver) tellWhy(ctx context.Context, n *node, inputs []Snapshot, settled bool) {
	if s.trail == nil {
		return
	}
	was, err := s.trail.Load(slot(n.v))
	if err != nil {
		s.logger.Debug("the facts of a step are not known", "step", n.v.Name, "error", err)
	}
	if err != nil {
		n.display.decide(decidedRan, "its earlier facts are not known")
		return
	}
	var now *explain.Facts
	if was != nil {
		assumed := was
		if settled {
			assumed = nil
		}
		if now, err = s.facts(ctx, n, inputs, assumed); err != nil {
			s.logger.Debug("the facts of a step are not known", "step", n.v.Name, "error", err)
			return
		}
	}
	n.display.decide(decidedRan, why(n, was, now))
}

// saveFacts saves the facts of n for the next build. All inputs must be settled.
func (s *Solver) saveFacts(ctx context.Context, n *node, inputs []Snapshot) {
	if s.trail == nil {
		return
	}
	facts, err := s.facts(ctx, n, inputs, nil)
	if err == nil {
		err = s.trail.Save(slot(n.v), facts)
	}
	if err != nil {
		s.logger.Warn("the facts of a step are not stored", "step", n.v.Name, "error", err)
	}
}

// facts returns the values that the key of n depends on, one by one. Each input counts
// with its actual content. If an input is still being packed, its facts are copied from
// assumed; if assumed is nil, facts waits for the input. Facts are only shown to the
// user: cache hits depend on the key alone.
func (s *Solver) facts(ctx context.Context, n *node, inputs []Snapshot, assumed *explain.Facts) (*explain.Facts, error) {
	trees, salts, err := s.trees(ctx, n)
	if err != nil {
		return nil, err
	}
	c := collector{ctx: ctx, v: n.v, trees: trees, salts: salts, inputs: inputs, assumed: assumed, out: &explain.Facts{}}
	return c.out, describe(n.v, c)
}

// collector is the visitor that collects facts.
type collector struct {
	ctx     context.Context //nolint:containedctx // lives for one call of facts
	v       *llb.Vertex
	trees   []*local.Tree
	salts   []string
	inputs  []Snapshot
	assumed *explain.Facts
	out     *explain.Facts
}

// part adds a fact if the part has a kind. A part without a kind, for example the number
// of variables, follows from the other facts.
func (c collector) part(kind explain.Kind, name string, fields ...field) {
	if kind == "" {
		return
	}
	h := cache.NewHasher(string(kind))
	for _, f := range fields {
		f(h)
	}
	c.out.Add(kind, name, []byte(h.Key()))
}

func (c collector) input(i int, kind explain.Kind, name string, reads []local.Selection) error {
	for _, sel := range reads {
		c.part(kind, name, text(sel.String()))
	}
	return c.content(i, reads)
}

// content adds the facts of an input. If the input lies outside the store, each file that
// is read becomes a fact of its own.
func (c collector) content(i int, reads []local.Selection) error {
	tree := c.trees[i]
	name := c.v.Inputs[i].Vertex.Name
	if tree == nil && c.inputs[i].Draft != nil && c.assumed != nil {
		c.out.Assume(c.assumed, explain.Input, name)
		return nil
	}
	if tree == nil {
		chain, err := c.inputs[i].chain(c.ctx)
		c.out.Add(explain.Input, name, []byte(chain))
		return err
	}
	if c.salts[i] != "" {
		c.out.Add(explain.Input, name, []byte(c.salts[i]))
	}
	for _, sel := range reads {
		err := tree.Describe(c.ctx, sel, func(path string, sum []byte) {
			c.out.Add(explain.File, strings.TrimPrefix(path, "/"), sum)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Decisions about a step, as the progress output shows them.
const (
	decidedCached = "cached"
	decidedRan    = "ran"
)

// why returns the reason why n has to run, for the user. was is nil if no earlier build
// recorded n.
func why(n *node, was, now *explain.Facts) string {
	if n.v.IgnoreCache {
		return "asked to run again"
	}
	if was == nil {
		return "not built here before"
	}
	if changes := explain.Compare(was, now); len(changes) > 0 {
		return explain.Sentence(changes)
	}
	return "its result is no longer in the store"
}
