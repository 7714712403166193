package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/solver/pb"
)

// errPanic is wrapped by the error that replaces a panic of the front end.
var errPanic = errors.New("the front end failed in an unforeseen way")

// guarded runs the front end and returns a panic as an error. A panic in another
// goroutine cannot be recovered. The known causes of panics are therefore avoided in
// advance, see checkTriggers and listTargets.
func guarded(ctx context.Context, g *gateway) (res *client.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			res, err = nil, fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	res, err = builder.Build(ctx, g)
	return res, err
}

// parse parses a Dockerfile. It always passes a linter: without one, BuildKit
// dereferences a nil pointer if a comment configures the linter (# check=…).
func parse(dockerfile []byte) ([]instructions.Stage, []instructions.ArgCommand, error) {
	ast, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return nil, nil, err
	}
	return instructions.Parse(ast.AST, linter.New(&linter.Config{}))
}

// listTargets makes the report CallTargets. The front end makes the same report, but it
// panics on Dockerfiles with the comments described at parse.
func listTargets(dockerfile []byte) (*client.Result, error) {
	stages, _, err := parse(dockerfile)
	if err != nil {
		return nil, err
	}
	list := targets.List{Sources: [][]byte{dockerfile}}
	for i, s := range stages {
		list.Targets = append(list.Targets, targets.Target{
			Name: s.Name, Description: s.DocComment, Default: i == len(stages)-1,
			Base: s.BaseName, Platform: s.Platform, Location: location(s.Location),
		})
	}
	return list.ToResult()
}

func location(ranges []parser.Range) *pb.Location {
	if len(ranges) == 0 {
		return nil
	}
	l := &pb.Location{}
	for _, r := range ranges {
		l.Ranges = append(l.Ranges, &pb.Range{
			Start: &pb.Position{Line: int32(r.Start.Line), Character: int32(r.Start.Character)},
			End:   &pb.Position{Line: int32(r.End.Line), Character: int32(r.End.Character)},
		})
	}
	return l
}

// triggersOf returns the ONBUILD instructions of an image.
func triggersOf(config []byte) []string {
	var image struct {
		Config struct{ OnBuild []string } `json:"config"`
	}
	// An invalid config is reported by its other readers.
	if json.Unmarshal(config, &image) != nil {
		return nil
	}
	return image.Config.OnBuild
}

// checkTriggers refuses triggers that contain comments. The front end panics on them, and
// no builder writes them.
func checkTriggers(ref string, config []byte) error {
	for _, trigger := range triggersOf(config) {
		ast, err := parser.Parse(strings.NewReader(trigger))
		if err != nil {
			continue // the front end returns the same error
		}
		for _, n := range ast.AST.Children {
			if len(n.PrevComment) > 0 {
				return fmt.Errorf("image %s has an ONBUILD trigger that begins with a comment: %q", ref, trigger)
			}
		}
	}
	return nil
}
