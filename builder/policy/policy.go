package policy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/sourcepolicy"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// maxFile is the maximum size in bytes of a policy file.
const maxFile = 16 << 20

// Policy holds rules about sources. A nil Policy allows everything. Its methods are safe
// for concurrent use.
type Policy struct {
	engine *sourcepolicy.Engine
}

// Read reads a policy file, which is JSON or, as in BuildKit, protobuf.
func Read(path string) (*Policy, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read source policy: %w", err)
	}
	p, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read source policy %s: %w", path, err)
	}
	return p, nil
}

func readFile(path string) (_ []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// Parse parses a policy. An unknown field in JSON is an error, because a rule that is
// only partly applied gives no protection.
func Parse(data []byte) (*Policy, error) {
	rules, err := decode(data)
	if err != nil {
		return nil, err
	}
	if err := check(rules); err != nil {
		return nil, err
	}
	return &Policy{engine: sourcepolicy.NewEngine([]*spb.Policy{rules})}, nil
}

// decode parses JSON with either spelling of field names, matchType or match_type (buildx
// supports only the latter), with letters in any case as in buildx, or protobuf.
func decode(data []byte) (*spb.Policy, error) {
	rules := &spb.Policy{}
	if protojson.Unmarshal(data, rules) == nil {
		return rules, nil
	}
	rules = &spb.Policy{}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(rules)
	if err == nil {
		return rules, nil
	}
	rules = &spb.Policy{}
	if proto.Unmarshal(data, rules) == nil && len(rules.GetRules()) > 0 {
		return rules, nil
	}
	return nil, err
}

// check returns an error for rules on which the engine would fail during a build.
func check(rules *spb.Policy) error {
	for i, r := range rules.GetRules() {
		switch {
		case r == nil:
			return fmt.Errorf("rule %d is null", i)
		case r.GetSelector() == nil:
			return fmt.Errorf("rule %d has no selector", i)
		case r.GetAction() == spb.PolicyAction_CONVERT && r.GetUpdates() == nil:
			return fmt.Errorf("rule %d converts, but has no updates", i)
		}
		for _, c := range r.GetSelector().GetConstraints() {
			if c == nil {
				return fmt.Errorf("rule %d has a constraint that is null", i)
			}
		}
	}
	return nil
}

// Source applies the rules to a source and modifies it if a rule converts it. It returns
// an error if the source is denied.
func (p *Policy) Source(ctx context.Context, op *pb.SourceOp) error {
	if p == nil {
		return nil
	}
	_, err := p.engine.Evaluate(ctx, op)
	return err
}
