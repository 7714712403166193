package probe

import (
	"context"
	"fmt"
	"slices"

	"github.com/shale-build/shale/runtime/userns"
)

// Status is the status of a feature.
type Status string

// The statuses. Degraded means that shale can work without the feature, with
// restrictions.
const (
	OK       Status = "ok"
	Missing  Status = "missing"
	Degraded Status = "degraded"
)

// The names of the probes.
const (
	UserNS     = "user namespace"
	AppArmor   = "AppArmor"
	IDMap      = "id map"
	Ownership  = "recorded ownership" // only if one id is mapped
	InPlace    = "in place"           // only for root without namespaces
	FreshProc  = "fresh /proc"
	PivotRoot  = "pivot_root"
	Notify     = "seccomp notification"
	Tun        = "/dev/net/tun"
	Cgroup     = "cgroup"
	NoNewPrivs = "no_new_privs"
	Container  = "container"
)

// Result is the result of one probe.
type Result struct {
	Name   string
	Status Status
	Detail string
	Fix    string // one line; empty if no action is needed
}

// Run runs all probes and returns the results in the order of the names above. It must be
// called outside the namespaces of package userns.
func Run(ctx context.Context) []Result {
	results := namespaces(ctx)
	if isRoot() && slices.ContainsFunc(results, func(r Result) bool {
		return (r.Name == UserNS || r.Name == PivotRoot) && r.Status == Missing
	}) {
		results = append(results, inPlace())
	}
	return append(results, notify(), tun(), cgroup(ctx), noNewPrivs(), container())
}

// Hopeless reports whether no image can be built on the machine that the results
// describe.
func Hopeless(results []Result) bool {
	letter, _ := Mode(results)
	return letter == 'E' || letter == 'F' ||
		letter == 'D' && slices.ContainsFunc(results, func(r Result) bool { return r.Name == InPlace && r.Status == Missing })
}

// Mode returns the letter of the environment, A to F, that the results describe. The
// explanation says how shale builds in it, or why it cannot.
func Mode(results []Result) (letter byte, explanation string) {
	by := map[string]Result{}
	for _, r := range results {
		by[r.Name] = r
	}
	inside := by[Container].Status == Degraded
	why := by[UserNS]
	if why.Status == OK && by[PivotRoot].Status == Missing {
		why = by[PivotRoot]
	}
	switch {
	case by[AppArmor].Status == Missing:
		return 'F', by[AppArmor].Detail + "; " + by[AppArmor].Fix
	case why.Status != OK && by[InPlace].Status == Missing:
		return 'D', fmt.Sprintf("no namespaces in this container, and steps cannot run in its own root directory: %s; %s", by[InPlace].Detail, by[InPlace].Fix)
	case why.Status != OK && isRoot():
		return 'D', "no namespaces in this container: steps run in its own root directory (--isolation=inplace)"
	case why.Status != OK:
		return 'E', fmt.Sprintf("no way to isolate a build: %s; %s", why.Detail, userns.WaysOut)
	case isRoot() && inside:
		return 'C', "root of a container: its own ids are used"
	case by[IDMap].Status == OK:
		return 'A', "all ids are mapped: " + by[IDMap].Detail
	case by[Ownership].Status != OK:
		return 'B', "only one id is mapped, and owners cannot be recorded: " + by[Ownership].Detail
	default:
		return 'B', "owners are recorded, not enforced, as only one id is mapped: " + by[IDMap].Detail
	}
}
