package solve

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/protobuf/proto"

	"github.com/shale-build/shale/builder/explain"
	"github.com/shale-build/shale/builder/fileop"
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
	switch {
	case n.v.Exec != nil:
		err = c.exec()
	case n.v.File != nil:
		err = c.file()
	case n.v.Merge != nil:
		for i := range n.v.Inputs {
			if err = c.input(i, []local.Selection{{Path: "/"}}); err != nil {
				break
			}
		}
	}
	return c.out, err
}

type collector struct {
	ctx     context.Context //nolint:containedctx // lives for one call of facts
	v       *llb.Vertex
	trees   []*local.Tree
	salts   []string
	inputs  []Snapshot
	assumed *explain.Facts
	out     *explain.Facts
}

func (c collector) exec() error {
	op := c.v.Exec
	meta := op.GetMeta()
	c.out.Add(explain.Command, "", []byte(strings.Join(meta.GetArgs(), "\x00")))
	for _, kv := range meta.GetEnv() {
		name, value, _ := strings.Cut(kv, "=")
		c.out.Add(explain.Variable, name, []byte(value))
	}
	c.setting("working directory", meta.GetCwd())
	c.setting("user", meta.GetUser())
	c.setting("hostname", meta.GetHostname())
	c.setting("network", op.GetNetwork().String())
	c.setting("security mode", op.GetSecurity().String())
	for _, host := range meta.GetExtraHosts() {
		c.setting("extra host "+host.GetHost(), "")
	}
	for _, secret := range op.GetSecretenv() {
		c.setting("secret variable "+secret.GetName(), secret.GetID())
	}
	for _, device := range op.GetCdiDevices() {
		c.setting("device "+device.GetName(), "")
	}
	for _, m := range op.GetMounts() {
		if err := c.mount(m); err != nil {
			return err
		}
	}
	return nil
}

func (c collector) setting(name, value string) { c.out.Add(explain.Setting, name, []byte(value)) }

func (c collector) mount(m *pb.Mount) error {
	if m.GetDest() != pb.RootMount {
		// Without the number of the input, which says nothing by itself.
		bare, ok := proto.Clone(m).(*pb.Mount)
		if !ok {
			return fmt.Errorf("copy the mount at %s", m.GetDest())
		}
		bare.Input, bare.CacheOpt = 0, nil
		what, err := proto.MarshalOptions{Deterministic: true}.Marshal(bare)
		if err != nil {
			return fmt.Errorf("describe the mount at %s: %w", m.GetDest(), err)
		}
		c.out.Add(explain.Mount, m.GetDest(), what)
	}
	if m.GetInput() < 0 || m.GetMountType() == pb.MountType_SECRET || m.GetMountType() == pb.MountType_SSH {
		return nil
	}
	return c.input(int(m.GetInput()), []local.Selection{{Path: m.GetSelector()}})
}

func (c collector) file() error {
	desc, err := fileop.Key(c.v.File)
	if err != nil {
		return err
	}
	c.out.Add(explain.Command, "", desc)
	for i := range c.v.Inputs {
		sel, err := fileop.Selections(c.v.File, i)
		if err != nil {
			return err
		}
		if err := c.input(i, sel); err != nil {
			return err
		}
	}
	return nil
}

func (c collector) input(i int, reads []local.Selection) error {
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
