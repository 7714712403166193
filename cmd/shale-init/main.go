// Command shale-init is the first process of a container. It executes the user's
// command. shale embeds this program and passes it to the container in memory. It is
// not meant to be called by users.
package main

import (
	"os"
	"runtime"

	"github.com/shale-build/shale/runtime/sandbox/initproc"
)

// init locks the main goroutine to the first thread of the process, because that thread
// must execute the user's command.
func init() { runtime.LockOSThread() }

func main() {
	initproc.Main()
	_, _ = os.Stderr.WriteString("shale-init: this program is started by shale only\n")
	os.Exit(125)
}
