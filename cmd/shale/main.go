// Command shale builds OCI images from Dockerfiles, rootless and without a
// daemon.
package main

import (
	"context"
	"os"
	"runtime"

	"github.com/shale-build/shale/cmd/shale/cli"
	_ "github.com/shale-build/shale/cmd/shale/early" // saves a start
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/storage"
)

func init() {
	// Libcontainer enters a container's namespaces on threads that it then gives
	// up. The first thread cannot be given up, and what /proc/self shows is its
	// view: nobody but main runs there.
	runtime.LockOSThread()
}

func main() {
	delayGC()
	// The process may be a helper of its own: the store's, for packing and
	// unpacking. A container's first process never gets here.
	if storage.Reexec() {
		return
	}
	// Or the child of a doctor's probe.
	probe.Main()
	ctx, stop := cli.Signals(context.Background(), os.Stderr)
	code := cli.Main(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
