package builder

import (
	"slices"
	"testing"

	"github.com/moby/buildkit/solver/pb"
)

// readsFrom must return each path that a COPY reads from a stage. Without mounts, the
// operation sees only the files at these paths.
func TestReadsFrom(t *testing.T) {
	copies := func(input int64, list ...*pb.FileActionCopy) *pb.FileOp {
		op := &pb.FileOp{}
		for _, c := range list {
			op.Actions = append(op.Actions, &pb.FileAction{SecondaryInput: input, Action: &pb.FileAction_Copy{Copy: c}})
		}
		return op
	}
	users := []string{"/etc/passwd", "/etc/group"}
	for name, c := range map[string]struct {
		op   *pb.FileOp
		want []string
	}{
		"file":                  {copies(1, &pb.FileActionCopy{Src: "/usr/bin/curl"}), append(users, "/usr/bin/curl")},
		"several":               {copies(1, &pb.FileActionCopy{Src: "/a"}, &pb.FileActionCopy{Src: "b/./c/"}), append(users, "/a", "/b/c")},
		"wildcard":              {copies(1, &pb.FileActionCopy{Src: "/usr/lib*/x", AllowWildcard: true}), append(users, "/usr")},
		"wildcard in directory": {copies(1, &pb.FileActionCopy{Src: "/usr/lib/[ab]", AllowWildcard: true}), append(users, "/usr/lib")},
		"wildcard at the top":   {copies(1, &pb.FileActionCopy{Src: "/*", AllowWildcard: true}), nil},
		"star that is a name":   {copies(1, &pb.FileActionCopy{Src: "/a*"}), append(users, "/a*")},
		"all":                   {copies(1, &pb.FileActionCopy{Src: "/a"}, &pb.FileActionCopy{Src: "/"}), nil},
		"of another input":      {copies(0, &pb.FileActionCopy{Src: "/"}), users},
	} {
		t.Run(name, func(t *testing.T) {
			if got := readsFrom(c.op, 1); !slices.Equal(got, c.want) {
				t.Errorf("reads %q, want %q", got, c.want)
			}
		})
	}
}
