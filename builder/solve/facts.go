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

// place matches the beginning of a step's name, "[build 2/4] ": its stage and
// its number there. How many follow it does not tell it from others.
var place = regexp.MustCompile(`^\[(.*?)(\d+)/\d+\] `)

// slot names the place of v in its Dockerfile, whatever stands there.
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

// tellWhy tells why n runs, beside the packing of its inputs or, with settled,
// after it. A build is not the worse for it when that fails.
func (s *Solver) tellWhy(ctx context.Context, n *node, inputs []Snapshot, settled bool) {
	if s.trail == nil {
		return
	}
	was, err := s.trail.Load(slot(n.v))
	if err != nil {
		s.logger.Debug("what a step was made of is not known", "step", n.v.Name, "error", err)
	}
	if err != nil {
		n.display.decide(decidedRan, "what it was made of before is not known")
		return
	}
	var now *explain.Facts
	if was != nil {
		assumed := was
		if settled {
			assumed = nil
		}
		if now, err = s.facts(ctx, n, inputs, assumed); err != nil {
			s.logger.Debug("what a step is made of is not known", "step", n.v.Name, "error", err)
			return
		}
	}
	n.display.decide(decidedRan, why(n, was, now))
}

// saveFacts keeps what n was made of. Its inputs are in the store.
func (s *Solver) saveFacts(ctx context.Context, n *node, inputs []Snapshot) {
	if s.trail == nil {
		return
	}
	facts, err := s.facts(ctx, n, inputs, nil)
	if err == nil {
		err = s.trail.Save(slot(n.v), facts)
	}
	if err != nil {
		s.logger.Warn("what a step was made of is not kept", "step", n.v.Name, "error", err)
	}
}

// facts are what the key of n depends on, one by one, with inputs as they turned
// out to be. One that is still being packed is taken from assumed, unless that is
// nil: then it is waited for. They are for people: the key alone decides.
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

// part makes a fact of what has a kind. The rest, such as how many variables there are,
// follows from the facts.
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

// content makes facts of what an input is, and of each file that is read of one outside
// the store.
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

// Decisions about a step, as progress shows them.
const (
	decidedCached = "cached"
	decidedRan    = "ran"
)

// why says why n has to run, for people. was is nil when nothing is known of
// earlier times.
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
