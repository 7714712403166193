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

// cgroupRoot is where cgroups are mounted on every system.
const cgroupRoot = "/sys/fs/cgroup"

// Limits bound what a container may use; the zero value bounds nothing. They
// are docker's and mean the same, in cgroups of either version.
type Limits struct {
	// Memory in bytes, MemorySwap of memory and swap together, -1 for any
	// amount of swap.
	Memory, MemorySwap int64
	// CPUShares is a weight (1024 is usual); CPUQuota of each CPUPeriod, in
	// microseconds, is the time on all processors together.
	CPUShares, CPUPeriod uint64
	CPUQuota             int64
	// CPUs and Mems are lists of processors and memory nodes: 0-3,7.
	CPUs, Mems string
	// Parent is the cgroup to make the container's in.
	Parent string
}

// wanted are the limits by the names of docker's flags, and the cgroup
// controllers of version 1 that they need.
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

// without returns the limits that are not named.
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

// cgroup is where a Runner may make cgroups.
type cgroup struct {
	unified bool
	// all tells that the hierarchies are the process's to use, as they are
	// the machine's root's.
	all bool
	// dir is, in version 2, the cgroup below which a user may make others;
	// empty when there is none, why says for what reason then.
	dir, why string
	own      string
}

// delegation is what a user's systemd is told to hand on for the rest.
const delegation = "Delegate=cpu cpuset io memory pids"

// findCgroup looks for a place that this process may use. A user has one in
// version 2 when the parent of the own cgroup was delegated, as systemd does
// with user@.service: a cgroup with processes cannot have children with
// limits (cgroups(7), "no internal processes").
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

// place returns where cgroups can be made for containers with limits l. The first
// time that it takes a scope, the process moves into one.
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

// current is the last answer of place.
func (r *Runner) current() cgroup {
	r.placing.Lock()
	defer r.placing.Unlock()
	return r.cgroup
}

// enter moves the process into a scope. Its cgroup is the parent of those of
// containers, so the process itself goes one further down.
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

// OwnCgroup returns this process's cgroup in version 2, as a path from the root of
// the hierarchy, or "" if it is not known.
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

// Unavailable returns those of the limits that cannot be applied, named as
// docker's flags, and why. A container that is asked for them runs without.
// The first time that limits are wanted, the process may move into another cgroup
// (see Options.Scope).
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

// lacks says why a controller cannot be used.
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

// refuses says why no cgroup can be made in parent, "" being no wish.
func (c cgroup) refuses(parent string) string {
	switch {
	case parent == "" || c.all:
		return ""
	case c.dir == "":
		return c.why
	}
	dir := c.inParent(parent)
	if !strings.HasPrefix(dir+"/", strings.TrimSuffix(c.dir, "/")+"/") {
		return fmt.Sprintf("the cgroup %s is not below %s, which is what was delegated to the user", dir, c.dir)
	}
	err := unix.Access(filepath.Join(cgroupRoot, dir), unix.W_OK)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("the cgroup %s: %v", dir, err)
	}
	return ""
}

// shown tells whether a container can be shown its own cgroup, read-only
// unless it is privileged; in version 2 that takes a namespace, too.
func (c cgroup) shown() bool { return c.all || c.unified && c.own != "" }

func (c cgroup) mount(privileged bool) specs.Mount {
	opts := []string{"nosuid", "noexec", "nodev"}
	if !privileged {
		opts = append(opts, "ro")
	}
	return specs.Mount{Destination: cgroupRoot, Type: "cgroup", Source: "cgroup", Options: opts}
}

// inParent is the path that docker means by a parent: from the root of the
// hierarchy, or, for a user, from what was delegated.
func (c cgroup) inParent(parent string) string {
	if !c.all && !filepath.IsAbs(parent) {
		return filepath.Join(c.dir, parent)
	}
	return filepath.Join("/", parent)
}

// path of a container's cgroup; empty leaves it to libcontainer, which does
// without where it may not make one.
func (c cgroup) path(id string, l Limits) string {
	switch {
	case l.Parent != "":
		return filepath.Join(c.inParent(l.Parent), "shale-"+id)
	case !c.all && len(l.wanted()) > 0:
		return filepath.Join(c.dir, "shale-"+id)
	}
	return ""
}
