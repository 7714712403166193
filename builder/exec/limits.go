package exec

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/runtime/sandbox"
)

// rlimits translates --ulimit; the names are those of docker run.
func rlimits(list []*pb.Ulimit) ([]sandbox.Rlimit, error) {
	var out []sandbox.Rlimit
	for _, u := range list {
		limit := units.Ulimit{Name: u.GetName(), Soft: u.GetSoft(), Hard: u.GetHard()}
		if _, err := limit.GetRlimit(); err != nil {
			return nil, fmt.Errorf("ulimit %s: %w", u.GetName(), err)
		}
		out = append(out, sandbox.Rlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.GetName()),
			Soft: uint64(u.GetSoft()),
			Hard: uint64(u.GetHard()),
		})
	}
	return out, nil
}
