// Command shale builds OCI images from Dockerfiles, rootless and without a
// daemon.
package main

import (
	"context"
	"os"

	"github.com/shale-build/shale/cmd/shale/cli"
	"github.com/shale-build/shale/runtime/probe"
	"github.com/shale-build/shale/storage"
)

func main() {
	// The process may be a helper of its own: the store's, for packing and
	// unpacking. A container's first process never gets here.
	if storage.Reexec() {
		return
	}
	// Or the child of a doctor's probe.
	probe.Main()
	ctx, stop := cli.Signals(context.Background())
	code := cli.Main(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
