package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// cgroupRoot is the mount point of the cgroup file systems on all distributions.
const cgroupRoot = "/sys/fs/cgroup"

// Limits are the resource limits of a container. The zero value sets no limit. The fields
// have the meaning of docker's flags, in cgroups of version 1 and 2.
type Limits struct {
	// Memory is in bytes. MemorySwap is the sum of memory and swap; -1 allows any amount
	// of swap.
	Memory, MemorySwap int64
	// CPUShares is a relative weight; the usual value is 1024. In each CPUPeriod the
	// container may use CPUQuota of processor time, summed over all processors. Both are
	// in microseconds.
	CPUShares, CPUPeriod uint64
	CPUQuota             int64
	// CPUs and Mems are lists of processors and of memory nodes, for example "0-3,7".
	CPUs, Mems string
	// Parent is the cgroup in which the container's cgroup is created.
	Parent string
}

// wanted returns the limits that are set, by the names of docker's flags. The values are
// the cgroup controllers of version 1 that apply them.
func (l Limits) wanted() map[string]string {
	out := map[string]string{}
	for name, set := range map[string]bool{"memory": l.Memory != 0, "memory-swap": l.MemorySwap != 0} {
		if set {
			out[name] = "memory"
		}
	}
	for name, set := range map[string]bool{"cpu-shares": l.CPUShares != 0, "cpu-period": l.CPUPeriod != 0, "cpu-quota": l.CPUQuota != 0} {
		if set {
			out[name] = "cpu"
		}
	}
	for name, set := range map[string]bool{"cpuset-cpus": l.CPUs != "", "cpuset-mems": l.Mems != ""} {
		if set {
			out[name] = "cpuset"
		}
	}
	return out
}

// without returns a copy of l without the named limits.
func (l Limits) without(names []string) Limits {
	for _, n := range names {
		switch n {
		case "memory":
			l.Memory = 0
		case "memory-swap":
			l.MemorySwap = 0
		case "cpu-shares":
			l.CPUShares = 0
		case "cpu-period":
			l.CPUPeriod = 0
		case "cpu-quota":
			l.CPUQuota = 0
		case "cpuset-cpus":
			l.CPUs = ""
		case "cpuset-mems":
			l.Mems = ""
		case "cgroup-parent":
			l.Parent = ""
		}
	}
	return l
}

func (l Limits) resources(to *specs.LinuxResources) {
	if l.Memory != 0 || l.MemorySwap != 0 {
		to.Memory = &specs.LinuxMemory{}
		if l.Memory != 0 {
			to.Memory.Limit = &l.Memory
		}
		if l.MemorySwap != 0 {
			to.Memory.Swap = &l.MemorySwap
		}
	}
	if l.CPUShares != 0 || l.CPUPeriod != 0 || l.CPUQuota != 0 || l.CPUs != "" || l.Mems != "" {
		to.CPU = &specs.LinuxCPU{Cpus: l.CPUs, Mems: l.Mems}
		if l.CPUShares != 0 {
			to.CPU.Shares = &l.CPUShares
		}
		if l.CPUPeriod != 0 {
			to.CPU.Period = &l.CPUPeriod
		}
		if l.CPUQuota != 0 {
			to.CPU.Quota = &l.CPUQuota
		}
	}
}

// cgroup describes the place in which a Runner may create cgroups.
type cgroup struct {
	unified bool
	// all is true if the process may use the whole hierarchies. That is so for the
	// machine's root.
	all bool
	// dir is the cgroup of version 2 below which a user may create cgroups. If dir is
	// empty, the user may not create any, and why holds the reason.
	dir, why string
	own      string
}

// delegation is the setting for the user's systemd unit that delegates the missing
// controllers.
const delegation = "Delegate=cpu cpuset io memory pids"

// findCgroup finds the cgroup that this process may use. A user may use the parent of the
// process's own cgroup, in version 2, if that parent was delegated, as systemd does with
// user@.service. The own cgroup cannot be used: a cgroup with processes cannot have
// children with limits (cgroups(7), "no internal processes").
func findCgroup(all bool) cgroup {
	c := cgroup{unified: cgroups.IsCgroup2UnifiedMode(), all: all}
	if all {
		return c
	}
	if !c.unified {
		c.why = "this machine has cgroups of version 1, which a user cannot be given (boot with systemd.unified_cgroup_hierarchy=1)"
		return c
	}
	c.own = OwnCgroup()
	if c.own == "" {
		c.why = "the process's own cgroup is not known"
		return c
	}
	parent := filepath.Dir(c.own)
	for _, name := range []string{".", "cgroup.procs", "cgroup.subtree_control"} {
		path := filepath.Join(cgroupRoot, parent, name)
		if unix.Access(path, unix.W_OK) != nil {
			c.why = fmt.Sprintf("the cgroup %s is not delegated to the user", parent)
			return c
		}
	}
	c.dir = parent
	return c
}

// place returns the place for cgroups of containers with limits l. If it needs a scope,
// it calls Options.Scope once, which moves the process into the scope.
func (r *Runner) place(ctx context.Context, l Limits) cgroup {
	r.placing.Lock()
	defer r.placing.Unlock()
	wanted := len(l.wanted()) > 0 || l.Parent != "" && !filepath.IsAbs(l.Parent)
	if c := r.cgroup; wanted && c.unified && !c.all && c.dir == "" && r.scope != nil {
		r.cgroup = c.enter(ctx, r.scope)
		r.scope = nil
	}
	return r.cgroup
}

// current returns the result of the last call of place.
func (r *Runner) current() cgroup {
	r.placing.Lock()
	defer r.placing.Unlock()
	return r.cgroup
}

// enter moves the process into a scope. The scope becomes the parent of the containers'
// cgroups, so the process itself must move into a child of the scope.
func (c cgroup) enter(ctx context.Context, scope func(context.Context) (string, error)) cgroup {
	dir, err := scope(ctx)
	if err != nil {
		c.why += ", and no scope could be made for the build: " + err.Error()
		return c
	}
	c.own = filepath.Join(dir, "builder")
	path := filepath.Join(cgroupRoot, c.own)
	err = os.Mkdir(path, 0o755) //nolint:gosec // as are all cgroups
	if err == nil {
		err = os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
	}
	if err != nil {
		c.own, c.why = dir, fmt.Sprintf("the scope %s cannot be divided: %v", dir, err)
		return c
	}
	c.dir, c.why = dir, ""
	return c
}

// OwnCgroup returns this process's cgroup of version 2 as a path from the root of the
// hierarchy. It returns "" if the cgroup is not known.
func OwnCgroup() string {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if path, ok := strings.CutPrefix(s.Text(), "0::"); ok {
			return path
		}
	}
	return ""
}

// Unavailable returns the limits of l that cannot be applied, by the names of docker's
// flags, and the reason. A container with these limits runs without them. The first call
// with any limits may move the process into another cgroup (see Options.Scope).
func (r *Runner) Unavailable(ctx context.Context, l Limits) (names []string, why string) {
	place := r.place(ctx, l)
	var reasons []string
	note := func(name, reason string) {
		if reason == "" {
			return
		}
		names = append(names, name)
		if !slices.Contains(reasons, reason) {
			reasons = append(reasons, reason)
		}
	}
	for name, controller := range l.wanted() {
		note(name, place.lacks(controller))
	}
	note("cgroup-parent", place.refuses(l.Parent))
	slices.Sort(names)
	slices.Sort(reasons)
	return names, strings.Join(reasons, "; ")
}

// lacks returns the reason for which a controller cannot be used, or "" if it can be
// used.
func (c cgroup) lacks(controller string) string {
	switch {
	case !c.all && c.dir == "":
		return c.why
	case !c.unified:
		if unix.Access(filepath.Join(cgroupRoot, controller), unix.W_OK) == nil {
			return ""
		}
	default:
		data, err := os.ReadFile(filepath.Join(cgroupRoot, c.dir, "cgroup.controllers"))
		if err == nil && slices.Contains(strings.Fields(string(data)), controller) {
			return ""
		}
	}
	if c.all {
		return fmt.Sprintf("the cgroup controller %s is not available", controller)
	}
	return fmt.Sprintf("the cgroup controller %s is not delegated to users (as root, set %s for user@.service)", controller, delegation)
}

// refuses returns the reason for which no cgroup can be created in parent, or "" if one
// can be created. An empty parent is never refused.
func (c cgroup) refuses(parent string) string {
	switch {
	case parent == "" || c.all:
		return ""
	case c.dir == "":
		return c.why
	}
	dir := c.inParent(parent)
	if !strings.HasPrefix(dir+"/", strings.TrimSuffix(c.dir, "/")+"/") {
		return fmt.Sprintf("the cgroup %s is not below %s, the cgroup that is delegated to the user", dir, c.dir)
	}
	err := unix.Access(filepath.Join(cgroupRoot, dir), unix.W_OK)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("the cgroup %s: %v", dir, err)
	}
	return ""
}

// shown reports whether the container's own cgroup can be mounted in the container. The
// mount is read-only unless the container is privileged. In version 2 it also needs a
// cgroup namespace.
func (c cgroup) shown() bool { return c.all || c.unified && c.own != "" }

func (c cgroup) mount(privileged bool) specs.Mount {
	opts := []string{"nosuid", "noexec", "nodev"}
	if !privileged {
		opts = append(opts, "ro")
	}
	return specs.Mount{Destination: cgroupRoot, Type: "cgroup", Source: "cgroup", Options: opts}
}

// inParent returns the path of the cgroup that docker's --cgroup-parent names. The
// machine's root and absolute paths count from the root of the hierarchy; a user's
// relative path counts from the delegated cgroup.
func (c cgroup) inParent(parent string) string {
	if !c.all && !filepath.IsAbs(parent) {
		return filepath.Join(c.dir, parent)
	}
	return filepath.Join("/", parent)
}

// path returns the path of a container's cgroup. If it returns "", libcontainer chooses
// the path, and runs the container without a cgroup if it is not allowed to create one.
func (c cgroup) path(id string, l Limits) string {
	switch {
	case l.Parent != "":
		return filepath.Join(c.inParent(l.Parent), "shale-"+id)
	case !c.all && len(l.wanted()) > 0:
		return filepath.Join(c.dir, "shale-"+id)
	}
	return ""
}
