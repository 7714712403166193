package exec

import (
	"context"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/builder/llb"
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

// limits are those of the step's control group. What this machine cannot apply
// is said once in a build, and the steps run without.
func (e *Executor) limits(ctx context.Context, v *llb.Vertex) sandbox.Limits {
	r := v.Resources
	l := sandbox.Limits{
		Memory: r.GetMemory(), MemorySwap: r.GetMemorySwap(),
		CPUShares: r.GetCpuShares(), CPUPeriod: r.GetCpuPeriod(), CPUQuota: r.GetCpuQuota(),
		CPUs: r.GetCpusetCpus(), Mems: r.GetCpusetMems(), Parent: v.Exec.GetMeta().GetCgroupParent(),
	}
	names, why := e.Runner.Unavailable(ctx, l)
	if len(names) == 0 {
		return l
	}
	e.mu.Lock()
	first := !e.noticed
	e.noticed = true
	e.mu.Unlock()
	if first {
		e.Logger.Warn("steps run without --"+strings.Join(names, ", --"), "reason", why)
	}
	return l
}
