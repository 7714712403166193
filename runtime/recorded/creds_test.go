package recorded

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestIDRules(t *testing.T) {
	start := ids{r: 1, e: 2, s: 3, fs: 2}
	type outcome struct {
		ids   ids
		errno unix.Errno
	}
	set := func(i ids, errno unix.Errno) outcome { return outcome{i, errno} }
	tests := []struct {
		name string
		got  outcome
		want outcome
	}{
		{"setuid as root sets all", set(start.set(9, true)), outcome{ids{9, 9, 9, 9}, 0}},
		{"setuid to the saved id", set(start.set(3, false)), outcome{ids{1, 3, 3, 3}, 0}},
		{"setuid to the effective id", set(start.set(2, false)), outcome{start, unix.EPERM}},
		{"setuid to another id", set(start.set(9, false)), outcome{start, unix.EPERM}},
		{"setuid to none", set(start.set(same, true)), outcome{start, unix.EINVAL}},
		{"setreuid swaps", set(start.setRE(2, 1, false)), outcome{ids{2, 1, 1, 1}, 0}},
		{"setreuid effective alone keeps the saved id", set(start.setRE(same, 1, false)), outcome{ids{1, 1, 3, 1}, 0}},
		{"setreuid to the saved id as real", set(start.setRE(3, same, false)), outcome{start, unix.EPERM}},
		{"setresuid among its own", set(start.setRES(3, 1, 2, false)), outcome{ids{3, 1, 2, 1}, 0}},
		{"setresuid elsewhere", set(start.setRES(same, same, 9, false)), outcome{start, unix.EPERM}},
		{"setresuid of nothing", set(start.setRES(same, same, same, false)), outcome{start, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.got != tt.want {
				t.Errorf("got %+v, want %+v", tt.got, tt.want)
			}
		})
	}
}

func TestCapabilitiesFollowIDs(t *testing.T) {
	root := newCreds(0, 0, nil)
	user := root.withUID(ids{5, 5, 5, 5})
	if user.capable() {
		t.Error("a user is still capable")
	}
	keeping := root
	keeping.keep = true
	kept := keeping.withUID(ids{5, 5, 5, 5})
	if !kept.capable() {
		t.Error("PR_SET_KEEPCAPS kept nothing")
	}
	if kept.executed(same, same).capable() {
		t.Error("capabilities outlive a program")
	}
	setuid := user.executed(0, same)
	if setuid.uid != (ids{5, 0, 0, 0}) || !setuid.capable() {
		t.Errorf("a set-uid program of root's has %+v", setuid.uid)
	}
	if back := setuid.withUID(ids{5, 5, 0, 5}); back.capable() {
		t.Error("the effective id does not count")
	}
}

func TestTagsAreShared(t *testing.T) {
	var all tags
	one := tagged{creds: newCreds(1, 2, []uint32{3})}
	two := tagged{creds: newCreds(1, 2, []uint32{3, 4})}
	pending := tagged{creds: one.creds, pending: true, then: two.creds, dev: 1, ino: 2}
	var numbers []int
	for _, e := range []tagged{one, two, pending, one, two, pending} {
		n, err := all.number(e)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	for i, want := range []int{1, 2, 3, 1, 2, 3} {
		if numbers[i] != want {
			t.Fatalf("numbers %v", numbers)
		}
	}
	if e := all.at(slack + 3); e == nil || !e.pending || all.at(slack) != nil || all.at(slack+4) != nil {
		t.Error("a slack stands for the wrong entry")
	}
}
