// Command shale-init is the first process of a container until it executes the
// user's command. It is embedded in shale, which hands it over in memory; nobody
// else calls it.
package main

import (
	"os"
	"runtime"

	"github.com/shale-build/shale/runtime/sandbox/initproc"
)

// The first thread executes the user's command.
func init() { runtime.LockOSThread() }

func main() {
	initproc.Main()
	_, _ = os.Stderr.WriteString("shale-init: this program is started by shale only\n")
	os.Exit(125)
}
