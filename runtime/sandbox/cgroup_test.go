package sandbox_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/runtime/userns"
)

var all = sandbox.Limits{
	Memory: 64 << 20, MemorySwap: 128 << 20, CPUShares: 512, CPUPeriod: 100000, CPUQuota: 50000, CPUs: "0", Mems: "0", Parent: "shale-test",
}

// A user's limits depend on the delegated controllers. Unavailable must name the limits
// that cannot be applied, and the container must run without them. With cgroups of
// version 1, these are all limits.
func TestLimitsOfAUser(t *testing.T) {
	if entered.Mode == userns.ModeRoot {
		return // see TestLimitsOfRoot
	}
	r, root := newRunner(t), newRootfs(t)
	names, why := r.Unavailable(t.Context(), all)
	want := []string{"cgroup-parent", "cpu-period", "cpu-quota", "cpu-shares", "cpuset-cpus", "cpuset-mems", "memory", "memory-swap"}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		want = names
	}
	if diff := cmp.Diff(want, names); diff != "" || (why == "") != (len(names) == 0) {
		t.Errorf("not available, because of %q (-want +got):\n%s", why, diff)
	}
	s := shell(root, "echo ran")
	s.Limits = all
	if got := output(t, r, s); got != "ran\n" {
		t.Errorf("output %q", got)
	}
	if names, why := r.Unavailable(t.Context(), sandbox.Limits{}); names != nil || why != "" {
		t.Errorf("no limit is not available: %q, %s", names, why)
	}
}

func TestLimitsOfRoot(t *testing.T) {
	if entered.Mode != userns.ModeRoot {
		return // see TestLimitsOfAUser
	}
	r, root := newRunner(t), newRootfs(t)
	names, why := r.Unavailable(t.Context(), all)
	s := shell(root, `cd /sys/fs/cgroup
for f in memory/memory.limit_in_bytes cpu/cpu.shares cpu/cpu.cfs_quota_us cpuset/cpuset.cpus memory.max cpu.weight cpu.max cpuset.cpus; do
	! test -e $f || echo $f $(cat $f)
done; grep -c /shale-test/shale- /proc/self/cgroup`)
	s.Limits = all
	got := output(t, r, s)
	_ = os.Remove("/sys/fs/cgroup/shale-test") // version 2; see below for 1
	for _, h := range []string{"memory", "cpu", "cpuset", "pids", "devices", "freezer", "blkio", "cpuacct", "systemd", "unified"} {
		_ = os.Remove("/sys/fs/cgroup/" + h + "/shale-test")
	}
	if len(names) > 0 {
		t.Logf("without %q: %s", names, why)
	}
	for name, wants := range map[string][]string{
		"memory":      {"memory/memory.limit_in_bytes 67108864\n", "memory.max 67108864\n"},
		"cpu-shares":  {"cpu/cpu.shares 512\n", "cpu.weight "},
		"cpu-quota":   {"cpu/cpu.cfs_quota_us 50000\n", "cpu.max 50000 100000\n"},
		"cpuset-cpus": {"cpuset/cpuset.cpus 0\n", "cpuset.cpus 0\n"},
	} {
		if strings.Contains(strings.Join(names, " "), name) {
			continue
		}
		if !strings.Contains(got, wants[0]) && !strings.Contains(got, wants[1]) {
			t.Errorf("%s is not applied:\n%s", name, got)
		}
	}
}
