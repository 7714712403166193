package exec

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/runtime/sandbox"
)

// rlimits converts the values of --ulimit. The names are those of docker run. Core dumps
// (core(5)) are disabled unless --ulimit core is given. Otherwise the layer could contain
// a core dump with the memory of a step and its secrets.
func rlimits(list []*pb.Ulimit) ([]sandbox.Rlimit, error) {
	var out []sandbox.Rlimit
	if !slices.ContainsFunc(list, func(u *pb.Ulimit) bool { return strings.EqualFold(u.GetName(), "core") }) {
		var own unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_CORE, &own); err != nil {
			return nil, os.NewSyscallError("getrlimit", err)
		}
		out = append(out, sandbox.Rlimit{Type: "RLIMIT_CORE", Hard: own.Max})
	}
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

// limits returns the limits of the step's cgroup. If this machine cannot apply a limit,
// the step runs without it. A warning is logged once per build.
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
