package llb

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// frame is one level of the walk: an operation and the number of its inputs that have
// been entered.
type frame struct {
	dgst digest.Digest
	next int
}

// sorted returns head and the operations that it depends on, inputs first and in a
// deterministic order. It uses its own stack, because a malicious graph may be too deep
// for the stack of a goroutine.
func sorted(ops map[digest.Digest]*pb.Op, head digest.Digest) ([]digest.Digest, error) {
	const (
		open = 1
		done = 2
	)
	state := make(map[digest.Digest]int, len(ops))
	var order []digest.Digest
	var stack []frame
	enter := func(dgst digest.Digest) error {
		switch {
		case ops[dgst] == nil:
			return fmt.Errorf("no operation %q", dgst)
		case state[dgst] == open:
			return fmt.Errorf("operation %s depends on itself", dgst)
		case state[dgst] == done:
			return nil
		}
		state[dgst] = open
		stack = append(stack, frame{dgst: dgst})
		return nil
	}
	if err := enter(head); err != nil {
		return nil, err
	}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		inputs := ops[top.dgst].Inputs
		if top.next == len(inputs) {
			state[top.dgst] = done
			order = append(order, top.dgst)
			stack = stack[:len(stack)-1]
			continue
		}
		top.next++
		if err := enter(digest.Digest(inputs[top.next-1].Digest)); err != nil {
			return nil, err
		}
	}
	return order, nil
}
