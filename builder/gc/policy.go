package gc

import (
	"slices"
	"time"
)

// Policy bounds the build cache, in the terms of BuildKit's gcpolicy. Images count
// for nothing: their layers are never removed.
type Policy struct {
	// KeepDuration is how long an unused object stays; 0 is for ever.
	KeepDuration time.Duration
	// Reserved is how many bytes the cache may always keep, whatever the other
	// bounds say; without any other it is how much it keeps.
	Reserved int64
	// MaxUsed is how many bytes the cache may have, 0 for any number.
	MaxUsed int64
	// MinFree is how many bytes are to be free on the disk, 0 for any number.
	MinFree int64
}

// Limits are a Policy of which the sizes may depend on that of the disk.
type Limits struct {
	KeepDuration               time.Duration
	Reserved, MaxUsed, MinFree Amount
}

// Amount is a number of bytes, or a share of the disk.
type Amount struct {
	Bytes int64
	// Percent is of the size of the disk, and Most the largest number of bytes that
	// it may come to, 0 for any.
	Percent int
	Most    int64
}

// Default returns the limits that are BuildKit's (v0.34, package config of
// buildkitd), but for its rule that cache mounts and sources go after two days.
func Default() Limits {
	return Limits{
		KeepDuration: 60 * 24 * time.Hour,
		Reserved:     Amount{Percent: 10, Most: 10e9},
		MaxUsed:      Amount{Percent: 80, Most: 100e9},
		MinFree:      Amount{Percent: 20},
	}
}

// On returns the policy for a disk of so many bytes.
func (l Limits) On(disk uint64) Policy {
	return Policy{KeepDuration: l.KeepDuration, Reserved: l.Reserved.on(disk), MaxUsed: l.MaxUsed.on(disk), MinFree: l.MinFree.on(disk)}
}

func (a Amount) on(disk uint64) int64 {
	if a.Percent == 0 {
		return a.Bytes
	}
	share := int64(disk / 100 * uint64(a.Percent))
	if a.Most > 0 {
		share = min(share, a.Most)
	}
	return share
}

// Bounded reports whether the policy says how large the cache may be.
func (p Policy) Bounded() bool {
	return p.MaxUsed > 0 || p.MinFree > 0 || p.Reserved > 0 && p.KeepDuration == 0
}

// keep returns how many of total bytes stay, where so many are free.
func (p Policy) keep(total, free int64) int64 {
	if !p.Bounded() {
		return total
	}
	keep := p.MaxUsed
	if keep == 0 && p.MinFree > 0 {
		keep = total
	}
	if lack := p.MinFree - free; lack > 0 {
		keep = min(keep, total-lack)
	}
	return max(keep, p.Reserved)
}

// Entry is one thing that can be removed by itself.
type Entry struct {
	Size int64
	Used time.Time
}

// Cutoff returns a time: objects last used then or before are to be removed. It
// returns false if none is. So many bytes are free on the disk.
//
// A time is all that the parts of the cache must know to remove together what was
// used least recently: steps, sources and cache mounts are kept in different places.
func (p Policy) Cutoff(entries []Entry, free int64, now time.Time) (until time.Time, some bool) {
	entries = slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return a.Used.Compare(b.Used) })
	var total int64
	for _, e := range entries {
		total += max(0, e.Size)
	}
	keep := p.keep(total, free)
	for _, e := range entries {
		old := p.KeepDuration > 0 && now.Sub(e.Used) > p.KeepDuration && total > p.Reserved
		if !old && total <= keep {
			break
		}
		until, some = e.Used, true
		total -= max(0, e.Size)
	}
	return until, some
}
