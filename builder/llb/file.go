package llb

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

// maxMode is the maximum mode: permission bits, set-id bits and sticky bit.
const maxMode = 0o7777

func fileOutputs(op *pb.FileOp) int {
	n := 0
	for _, a := range op.Actions {
		if a.Output >= 0 {
			n++
		}
	}
	return n
}

// checkFile checks the actions. An input index is NoInput, the index of an input of the
// operation, or the number of inputs plus the index of an earlier action.
func checkFile(v *Vertex) error {
	if len(v.File.Actions) == 0 {
		return errors.New("file operation without an action")
	}
	outputs := make([]bool, fileOutputs(v.File))
	if len(outputs) == 0 {
		return errors.New("file operation without a result")
	}
	for i, a := range v.File.Actions {
		if err := checkAction(a, len(v.Inputs)+i); err != nil {
			return fmt.Errorf("action %d: %w", i, err)
		}
		if a.Output < 0 {
			continue
		}
		if a.Output >= int64(len(outputs)) || outputs[a.Output] {
			return fmt.Errorf("action %d: output %d is out of range or given twice", i, a.Output)
		}
		outputs[a.Output] = true
	}
	return nil
}

func checkAction(a *pb.FileAction, inputs int) error {
	if !inRange(a.Input, inputs) {
		return fmt.Errorf("input %d, of %d", a.Input, inputs)
	}
	if !inRange(a.SecondaryInput, inputs) {
		return fmt.Errorf("second input %d, of %d", a.SecondaryInput, inputs)
	}
	if a.Output < NoOutput {
		return fmt.Errorf("output %d", a.Output)
	}
	switch kind := a.Action.(type) {
	case *pb.FileAction_Copy:
		return checkCopy(kind.Copy, inputs)
	case *pb.FileAction_Mkfile:
		return checkMake(kind.Mkfile.Path, kind.Mkfile.Mode, kind.Mkfile.Timestamp, kind.Mkfile.Owner, inputs)
	case *pb.FileAction_Mkdir:
		return checkMake(kind.Mkdir.Path, kind.Mkdir.Mode, kind.Mkdir.Timestamp, kind.Mkdir.Owner, inputs)
	case nil:
		return errors.New("no action")
	default:
		return fmt.Errorf("file action %T is not supported", kind)
	}
}

func checkCopy(c *pb.FileActionCopy, inputs int) error {
	if err := noNUL(c.Src, c.Dest, c.ModeStr); err != nil {
		return err
	}
	for _, list := range [][]string{c.IncludePatterns, c.ExcludePatterns, c.RequiredPaths} {
		if err := noNUL(list...); err != nil {
			return err
		}
	}
	if c.Mode < -1 || c.Mode > maxMode {
		return fmt.Errorf("mode %d", c.Mode)
	}
	if c.Timestamp < -1 {
		return fmt.Errorf("timestamp %d", c.Timestamp)
	}
	return checkOwner(c.Owner, inputs)
}

func checkMake(path string, mode int32, timestamp int64, owner *pb.ChownOpt, inputs int) error {
	if err := noNUL(path); err != nil {
		return err
	}
	if mode < 0 || mode > maxMode {
		return fmt.Errorf("mode %d", mode)
	}
	if timestamp < -1 {
		return fmt.Errorf("timestamp %d", timestamp)
	}
	return checkOwner(owner, inputs)
}

func checkOwner(o *pb.ChownOpt, inputs int) error {
	for _, u := range []*pb.UserOpt{o.GetUser(), o.GetGroup()} {
		switch by := u.GetUser().(type) {
		case nil, *pb.UserOpt_ByID:
		case *pb.UserOpt_ByName:
			if !inRange(by.ByName.Input, inputs) {
				return fmt.Errorf("owner %q: input %d, of %d", by.ByName.Name, by.ByName.Input, inputs)
			}
		default:
			return fmt.Errorf("owner %T is not supported", by)
		}
	}
	return nil
}

func checkMerge(v *Vertex) error {
	if len(v.Merge.Inputs) == 0 {
		return errors.New("merge without an input")
	}
	for _, in := range v.Merge.Inputs {
		if !inRange(in.Input, len(v.Inputs)) {
			return fmt.Errorf("merge of input %d, of %d", in.Input, len(v.Inputs))
		}
	}
	return nil
}

// noNUL returns an error if a string contains a NUL, because the kernel would truncate it
// there.
func noNUL(list ...string) error {
	for _, s := range list {
		if strings.ContainsRune(s, 0) {
			return fmt.Errorf("%q contains a NUL", s)
		}
	}
	return nil
}
