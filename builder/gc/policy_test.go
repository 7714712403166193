package gc

import (
	"testing"
	"time"
)

func TestCutoff(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	// The entries are not sorted by time.
	entries := []Entry{
		{Size: 10, Used: now.Add(-2 * time.Hour)},
		{Size: 10, Used: now.Add(-4 * time.Hour)},
		{Size: -1, Used: now.Add(-5 * time.Hour)}, // the size is not known
		{Size: 10, Used: now.Add(-3 * time.Hour)},
		{Size: 10, Used: now.Add(-1 * time.Hour)},
	}
	tests := map[string]struct {
		policy Policy
		free   int64
		// want is the age in hours of the newest removed entry, or 0 if none is removed.
		want time.Duration
	}{
		"no bounds":                         {},
		"small enough":                      {policy: Policy{MaxUsed: 40}},
		"too large":                         {policy: Policy{MaxUsed: 25}, want: 3},
		"a little too large":                {policy: Policy{MaxUsed: 39}, want: 4},
		"enough free":                       {policy: Policy{MinFree: 100}, free: 100},
		"not enough free":                   {policy: Policy{MinFree: 100}, free: 85, want: 3},
		"never enough free":                 {policy: Policy{MinFree: 100}, want: 1},
		"free space in spite of the bound":  {policy: Policy{MinFree: 100, MaxUsed: 40}, free: 95, want: 4},
		"the bound in spite of free space":  {policy: Policy{MinFree: 100, MaxUsed: 10}, free: 100, want: 2},
		"reserved in spite of the bound":    {policy: Policy{Reserved: 30, MaxUsed: 10}, want: 4},
		"reserved in spite of free space":   {policy: Policy{Reserved: 20, MinFree: 100}, want: 3},
		"reserved alone is a bound":         {policy: Policy{Reserved: 20}, want: 3},
		"too old":                           {policy: Policy{KeepDuration: 150 * time.Minute}, want: 3},
		"reserved in spite of age":          {policy: Policy{KeepDuration: time.Minute, Reserved: 30}, want: 4},
		"reserved is no bound beside age":   {policy: Policy{KeepDuration: 24 * time.Hour, Reserved: 10}},
		"age, and the bound":                {policy: Policy{KeepDuration: 210 * time.Minute, MaxUsed: 15}, want: 2},
		"all young, and small enough":       {policy: Policy{KeepDuration: 24 * time.Hour, MaxUsed: 100, MinFree: 5}, free: 10},
		"nothing free on a disk of another": {policy: Policy{Reserved: 100, MinFree: 100}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			until, some := tc.policy.Cutoff(entries, tc.free, now)
			if some != (tc.want > 0) || some && !until.Equal(now.Add(-tc.want*time.Hour)) {
				t.Errorf("%v ago, %v; want %d hours", now.Sub(until), some, tc.want)
			}
		})
	}
	if _, some := (Policy{MaxUsed: 1}).Cutoff(nil, 0, now); some {
		t.Error("something is to be removed of nothing")
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	const gb = 1_000_000_000
	for size, want := range map[uint64]Policy{
		50 * gb:   {Reserved: 5 * gb, MaxUsed: 40 * gb, MinFree: 10 * gb},
		1000 * gb: {Reserved: 10 * gb, MaxUsed: 100 * gb, MinFree: 200 * gb},
	} {
		want.KeepDuration = 1440 * time.Hour
		if got := Default().On(size); got != want {
			t.Errorf("on a disk of %d bytes: %+v, want %+v", size, got, want)
		}
	}
	if got := (Amount{Bytes: 7}).on(gb); got != 7 {
		t.Error(got)
	}
}
