package probe

import (
	"context"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestRun(t *testing.T) {
	got := Run(context.Background())
	for _, r := range got {
		t.Logf("%-22s %-9s %s [%s]", r.Name, r.Status, r.Detail, r.Fix)
		switch r.Name {
		case UserNS, FreshProc, PivotRoot, Notify:
			if r.Status != OK {
				t.Errorf("%s: %s", r.Name, r.Detail)
			}
		}
		if r.Status == Missing && r.Fix == "" {
			t.Errorf("%s has no fix", r.Name)
		}
	}
	l, why := Mode(got)
	t.Logf("mode %c: %s", l, why)
}

func TestMode(t *testing.T) {
	if isRoot() {
		return // for root, Mode returns other letters
	}
	ok := func(name string) Result { return Result{Name: name, Status: OK} }
	for want, rs := range map[byte][]Result{
		'A': {ok(UserNS), ok(IDMap)},
		'B': {ok(UserNS), {Name: IDMap, Status: Degraded}},
		'E': {{Name: UserNS, Status: Missing}},
		'F': {ok(UserNS), {Name: AppArmor, Status: Missing}},
	} {
		if got, _ := Mode(rs); got != want {
			t.Errorf("got %c, want %c", got, want)
		}
	}
}
