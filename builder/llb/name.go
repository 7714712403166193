package llb

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"
)

// fallbackName returns a name for a vertex that the front end did not name. The vertex
// may be unchecked.
func fallbackName(v *Vertex) string {
	switch {
	case v.Source != nil:
		return v.Source.Identifier
	case v.Exec != nil:
		return strings.Join(v.Exec.GetMeta().GetArgs(), " ")
	case v.File != nil:
		return fileName(v.File)
	case v.Merge != nil:
		return fmt.Sprintf("merge of %d", len(v.Merge.Inputs))
	default:
		return v.Digest.String()
	}
}

func fileName(op *pb.FileOp) string {
	var parts []string
	for _, a := range op.Actions {
		switch kind := a.Action.(type) {
		case *pb.FileAction_Copy:
			parts = append(parts, "copy "+kind.Copy.GetSrc()+" "+kind.Copy.GetDest())
		case *pb.FileAction_Mkfile:
			parts = append(parts, "mkfile "+kind.Mkfile.GetPath())
		case *pb.FileAction_Mkdir:
			parts = append(parts, "mkdir "+kind.Mkdir.GetPath())
		}
	}
	if len(parts) == 0 {
		return "file operation"
	}
	return strings.Join(parts, ", ")
}
