// Command testbed prepares the base images and registries of the tests, the demo and the
// benchmark.
//
// It makes the base images from packages of the Debian machine on which it runs, because
// the tests must not depend on pulling images from elsewhere. It serves them from a real
// registry while another command runs:
//
//	testbed images -cache DIR            make the base images, print their directory
//	testbed serve -images DIR -- CMD…    run CMD while registries serve the images
//
// serve passes the addresses of its two registries to CMD in the variables SHALE_REGISTRY
// (without authentication) and SHALE_REGISTRY_AUTH (user "shale", password "secret").
// Both listen on loopback without TLS. When CMD ends, they stop and their content is
// removed. The exit status is that of CMD, or 125 if testbed itself fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var ended commandError
	switch {
	case err == nil:
	case errors.As(err, &ended):
		os.Exit(ended.code)
	default:
		fmt.Fprintln(os.Stderr, "testbed:", err)
		os.Exit(125)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: testbed images -cache DIR | testbed serve -images DIR -- CMD [ARG…]")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "images":
		cache := flags.String("cache", "", "directory that keeps finished images")
		only := flags.String("only", "", "make just the image of this name")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if *cache == "" {
			return errors.New("images: -cache is required")
		}
		dir, err := makeImages(ctx, *cache, *only)
		if err != nil {
			return err
		}
		fmt.Println(dir)
		return nil
	case "serve":
		images := flags.String("images", "", "directory of base images to offer")
		addr := flags.String("addr", "", "address of the open registry, any free one by default")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if *images == "" || flags.NArg() == 0 {
			return errors.New("serve: -images and a command are required")
		}
		return serve(ctx, *images, *addr, flags.Args())
	}
	return fmt.Errorf("unknown command %q", args[0])
}
