// Command shale builds OCI images from Dockerfiles, without root and without a daemon.
package main

import (
	"context"
	"os"
	"runtime"

	"github.com/shale-build/shale/cmd/shale/cli"
	_ "github.com/shale-build/shale/cmd/shale/early" // avoids a second start of the program
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/storage"
)

func init() {
	// Libcontainer enters the namespaces of a container on threads that then end. The
	// first thread must not be such a thread: it cannot end, and /proc/self shows its
	// view. Therefore only main runs on it.
	runtime.LockOSThread()
}

func main() {
	delayGC()
	// This process may be a helper of the store that packs or unpacks layers. The first
	// process of a container never reaches this line.
	if storage.Reexec() {
		return
	}
	// It may also be the child of one of doctor's probes.
	probe.Main()
	ctx, stop := cli.Signals(context.Background(), os.Stderr)
	code := cli.Main(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
