package main

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestDelayGC(t *testing.T) {
	before := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	delayGC()
	percent := func() int {
		p := debug.SetGCPercent(-1)
		debug.SetGCPercent(p)
		return p
	}
	if got := percent(); got != 800 {
		t.Errorf("at the start GOGC = %d, want 800", got)
	}
	for range 100 {
		runtime.GC()
		if percent() == 100 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("after a collection GOGC = %d, want 100", percent())
}

func TestDelayGCLeavesTheUsers(t *testing.T) {
	before := debug.SetGCPercent(37)
	t.Cleanup(func() { debug.SetGCPercent(before) })
	delayGC()
	if got := debug.SetGCPercent(before); got != 37 {
		t.Errorf("GOGC = %d, want the user's 37", got)
	}
}
