package gc

import (
	"slices"
	"time"
)

// Policy limits the size and age of the build cache, in the terms of BuildKit's gcpolicy.
// Images do not count, because their layers are never removed.
type Policy struct {
	// KeepDuration is how long an unused object is kept. If it is 0, there is no limit.
	KeepDuration time.Duration
	// Reserved is how many bytes the cache may always keep, also if another limit is
	// lower. If all other fields are 0, it is the limit for the size of the cache.
	Reserved int64
	// MaxUsed is the maximum size of the cache in bytes. If it is 0, there is no limit.
	MaxUsed int64
	// MinFree is how many bytes must be free on the disk. If it is 0, there is no limit.
	MinFree int64
}

// Limits is like Policy, but its sizes may be relative to the size of the disk.
type Limits struct {
	KeepDuration               time.Duration
	Reserved, MaxUsed, MinFree Amount
}

// Amount is a number of bytes, or a percentage of the size of the disk.
type Amount struct {
	Bytes int64
	// Percent is a percentage of the size of the disk. If it is 0, Bytes is used. Most is
	// the maximum of the result in bytes, or 0 for none.
	Percent int
	Most    int64
}

// Default returns the limits of BuildKit (v0.34, package config of buildkitd), without
// its rule that removes cache mounts and sources after two days.
func Default() Limits {
	return Limits{
		KeepDuration: 60 * 24 * time.Hour,
		Reserved:     Amount{Percent: 10, Most: 10e9},
		MaxUsed:      Amount{Percent: 80, Most: 100e9},
		MinFree:      Amount{Percent: 20},
	}
}

// On returns the policy for a disk of that many bytes.
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

// Bounded reports whether the policy limits the size of the cache.
func (p Policy) Bounded() bool {
	return p.MaxUsed > 0 || p.MinFree > 0 || p.Reserved > 0 && p.KeepDuration == 0
}

// keep returns how many of total bytes may stay if free bytes are free on the disk.
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

// Entry is an object that can be removed separately.
type Entry struct {
	Size int64
	Used time.Time
}

// Cutoff returns a time: objects that were last used at that time or before must be
// removed. It returns false if no object must be removed. free is the number of free
// bytes on the disk.
//
// Steps, sources and cache mounts are kept in different places. With a common time, the
// least recently used of them can be removed together.
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
