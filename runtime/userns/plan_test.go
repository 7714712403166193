package userns

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestParseSubIDs(t *testing.T) {
	const file = "# comment\nalice:100000:65536\nbob:200000:10\n1001:300000:5\nalice:x:1\nalice:5\nalice:4294967295:2\n:1:1\nalice:7:0\n"
	want := []IDRange{{100000, 65536}, {300000, 5}}
	if diff := cmp.Diff(want, parseSubIDs(strings.NewReader(file), "alice", 1001)); diff != "" {
		t.Error(diff)
	}
	if got := parseSubIDs(strings.NewReader(file), "", 7); len(got) != 0 {
		t.Errorf("nameless user got %v", got)
	}
}

func FuzzParseSubIDs(f *testing.F) {
	f.Add("alice:100000:65536\n1001:1:4294967295")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range parseSubIDs(strings.NewReader(text), "alice", 1001) {
			if r.Count == 0 || r.Start+r.Count > 1<<32-1 {
				t.Errorf("range %v", r)
			}
		}
	})
}

func TestToolMap(t *testing.T) {
	got := toolMap(1001, []IDRange{{100000, 10}, {1000, 5}, {100005, 10}, {200000, 3}})
	if want := "0 1001 1 1 100000 10 11 200000 3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestIdentity(t *testing.T) {
	m := parseMap(strings.NewReader("         0       1001          1\n         1     100000      65536\n"))
	if got, want := identity([]extent{{0, 0, 1<<32 - 1}}), "0 0 1,1 1 4294967294"; got != want {
		t.Errorf("all ids: got %q, want %q", got, want)
	}
	if got, want := identity(m), "0 0 1,1 1 65536"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestChoose(t *testing.T) {
	full := facts{
		uid: 1000, gid: 1000, user: "u", newUIDMap: "/n", newGIDMap: "/n",
		subUIDs: []IDRange{{1 << 16, 1 << 16}}, subGIDs: []IDRange{{1 << 16, 1 << 16}},
	}
	with := func(change func(*facts)) facts { f := full; change(&f); return f }
	tests := []struct {
		name   string
		facts  facts
		mode   Mode
		reason string
	}{
		{"ranges", full, ModeFull, ""},
		{"no tool", with(func(f *facts) { f.newUIDMap = "" }), ModeSingle, "newuidmap is not installed"},
		{"no group tool", with(func(f *facts) { f.newGIDMap = "" }), ModeSingle, "newgidmap is not installed"},
		{"no range", with(func(f *facts) { f.subUIDs = nil }), ModeSingle, "/etc/subuid"},
		{"no group range", with(func(f *facts) { f.subGIDs = nil }), ModeSingle, "/etc/subgid"},
		{"root", facts{caps: 1 << unix.CAP_SYS_ADMIN}, ModeRoot, ""},
		{"root in a container", facts{uidMap: []extent{{0, 0, 9}}, gidMap: []extent{{0, 0, 9}}}, ModeIdentity, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := choose(tt.facts, "")
			if err != nil || p.mode != tt.mode || !strings.Contains(p.reason, tt.reason) {
				t.Errorf("plan %+v, error %v", p, err)
			}
		})
	}
	if _, err := choose(with(func(f *facts) { f.subUIDs = nil }), ModeFull); err == nil {
		t.Error("a full map without ranges was promised")
	}
}
