package fileop

import (
	"fmt"

	"github.com/moby/buildkit/solver/pb"
)

// plan records which actions change the destination. The other actions make intermediate
// results in directories of their own.
type plan struct{ onDest []bool }

// newPlan checks the dependencies between the actions of op. In an action, numbers below
// inputs are inputs. Higher numbers are the results of earlier actions. It returns
// ErrUnsupported if the actions cannot be run.
func newPlan(op *pb.FileOp, inputs int) (plan, error) {
	actions := op.GetActions()
	p := plan{onDest: make([]bool, len(actions))}
	last := scratch
	for i, a := range actions {
		if err := checkIndexes(a, i, inputs); err != nil {
			return p, err
		}
		if a.GetOutput() == scratch {
			continue
		}
		if a.GetOutput() != 0 || last != scratch {
			return p, fmt.Errorf("%w: more than one output", ErrUnsupported)
		}
		last = i
	}
	if last == scratch {
		return p, fmt.Errorf("%w: no output", ErrUnsupported)
	}
	for i := last; i >= 0; i = int(actions[i].GetInput()) - inputs {
		p.onDest[i] = true
	}
	return p, checkUses(actions, p, inputs)
}

func checkIndexes(a *pb.FileAction, i, inputs int) error {
	for _, in := range []int64{a.GetInput(), a.GetSecondaryInput()} {
		if in < scratch || in >= int64(inputs+i) {
			return fmt.Errorf("%w: action %d uses input %d of %d", ErrUnsupported, i, in, inputs+i)
		}
	}
	return nil
}

// checkUses rejects operations that cannot be run because results are changed in place. A
// result must not be changed by two actions, or read after it was changed. An
// intermediate result must not start as a copy of an input.
func checkUses(actions []*pb.FileAction, p plan, inputs int) error {
	changedBy := make([]int, len(actions))
	for i, a := range actions {
		in, second := int(a.GetInput()), int(a.GetSecondaryInput())
		if n := second - inputs; n >= 0 && changedBy[n] != 0 {
			return fmt.Errorf("%w: result of action %d is read by action %d after it was changed", ErrUnsupported, n, i)
		}
		n := in - inputs
		if n < 0 {
			if in != scratch && !p.onDest[i] {
				return fmt.Errorf("%w: intermediate result on top of input %d", ErrUnsupported, in)
			}
			continue
		}
		if changedBy[n] != 0 {
			return fmt.Errorf("%w: result of action %d is changed twice", ErrUnsupported, n)
		}
		changedBy[n] = i
	}
	return nil
}
