package fileop

import (
	"encoding/binary"
	"fmt"

	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/protobuf/proto"

	"github.com/shale-build/shale/builder/source/local"
)

// keyVersion must be changed if the same operation gets a different result.
const keyVersion = "shale file operation 1"

// Key returns an encoding of op for a cache key. It does not include the content of the
// inputs, which is covered by the digests of Selections.
func Key(op *pb.FileOp) ([]byte, error) {
	key := frame(nil, []byte(keyVersion))
	for i, a := range op.GetActions() {
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
		if err != nil {
			return nil, fmt.Errorf("describe action %d: %w", i, err)
		}
		key = frame(key, data)
	}
	return key, nil
}

func frame(key, data []byte) []byte {
	return append(binary.AppendUvarint(key, uint64(len(data))), data...)
}

// Selections returns the files of one input that op reads: the sources of copies, and the
// user databases if an owner is given by name. If the input is the base of the result,
// the whole input is selected. It returns an error if an owner's name would have to be
// looked up in an empty image.
func Selections(op *pb.FileOp, input int) ([]local.Selection, error) {
	var sel []local.Selection
	base := false
	for _, a := range op.GetActions() {
		base = base || int(a.GetInput()) == input
		if c := a.GetCopy(); c != nil && int(a.GetSecondaryInput()) == input {
			sel = append(sel, copySelection(c))
		}
		named, err := ownerSelections(owner(a), input)
		if err != nil {
			return nil, err
		}
		sel = append(sel, named...)
	}
	if base {
		sel = append(sel, local.Selection{Path: "/"})
	}
	return sel, nil
}

func copySelection(c *pb.FileActionCopy) local.Selection {
	return local.Selection{
		Path: c.GetSrc(), Wildcard: c.GetAllowWildcard(), FollowLinks: c.GetFollowSymlink(),
		IncludePatterns: c.GetIncludePatterns(), ExcludePatterns: c.GetExcludePatterns(),
		RequiredPaths: c.GetRequiredPaths(),
	}
}

func ownerSelections(o *pb.ChownOpt, input int) ([]local.Selection, error) {
	var sel []local.Selection
	for _, f := range []struct {
		opt  *pb.UserOpt
		path string
	}{{o.GetUser(), "/etc/passwd"}, {o.GetGroup(), "/etc/group"}} {
		name := f.opt.GetByName()
		if name == nil {
			continue
		}
		if name.GetInput() < 0 {
			return nil, noUsersError(name)
		}
		if int(name.GetInput()) == input {
			sel = append(sel, local.Selection{Path: f.path, FollowLinks: true, Optional: true})
		}
	}
	return sel, nil
}

// owner returns the owner that an action sets, or nil if it sets none.
func owner(a *pb.FileAction) *pb.ChownOpt {
	switch act := a.GetAction().(type) {
	case *pb.FileAction_Copy:
		return act.Copy.GetOwner()
	case *pb.FileAction_Mkdir:
		return act.Mkdir.GetOwner()
	case *pb.FileAction_Mkfile:
		return act.Mkfile.GetOwner()
	case *pb.FileAction_Symlink:
		return act.Symlink.GetOwner()
	}
	return nil
}
