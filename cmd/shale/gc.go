package main

import (
	"runtime"
	"runtime/debug"
)

// firstHeap is the number of bytes that a short run may allocate without a garbage
// collection. A build with all steps in the cache stays below it.
const firstHeap = 32 << 20

// delayGC delays the first garbage collection until the heap has firstHeap bytes. After
// that, Go's default applies.
func delayGC() {
	// With GOGC=100, the first collection starts at 4 MiB (runtime, heapMinimum).
	const minimum = 4 << 20
	usual := debug.SetGCPercent(100 * firstHeap / minimum)
	if usual != 100 {
		debug.SetGCPercent(usual) // the user has set GOGC
		return
	}
	// The object is not reachable, so the first collection calls the cleanup.
	runtime.AddCleanup(new([64]byte), func(percent int) { debug.SetGCPercent(percent) }, usual)
}
