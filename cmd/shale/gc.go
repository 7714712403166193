package main

import (
	"runtime"
	"runtime/debug"
)

// firstHeap is how much a short run may allocate without any garbage collection:
// a build that finds everything in the cache stays below it.
const firstHeap = 32 << 20

// delayGC puts off the first garbage collection until the heap has firstHeap
// bytes; from then on Go's default applies.
func delayGC() {
	// With GOGC=100 the first one starts at 4 MiB (runtime, heapMinimum).
	const minimum = 4 << 20
	usual := debug.SetGCPercent(100 * firstHeap / minimum)
	if usual != 100 {
		debug.SetGCPercent(usual) // the user's GOGC
		return
	}
	// The first collection finds that nobody holds this.
	runtime.AddCleanup(new([64]byte), func(percent int) { debug.SetGCPercent(percent) }, usual)
}
