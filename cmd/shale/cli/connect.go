package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/runtime/scope"
	"github.com/shale-build/shale/storage/registry"
)

// services holds the parts with which a build or a container runs, and texts that
// describe them to the user.
type services struct {
	deps builder.Deps
	net  *stepNetwork
	// description and shortDescription describe the environment in which steps run.
	description, shortDescription string
	close                         func() error
}

// newServices creates and connects the parts. network is the value of --network. The
// caller must call close on the result.
func newServices(c *cli.Context, s *session, network string) (*services, error) {
	if s.inPlace() && s.ids.SingleID() {
		return nil, errors.New("with a single id, owners cannot be recorded for steps that run in place: give the container more ids, or allow it to make namespaces")
	}
	runner, dir, closeRunner, err := newRunner(c.Context, s)
	if err != nil {
		return nil, err
	}
	net, netDescription, err := newNetwork(c.Context, s, dir, network)
	if err != nil {
		return nil, errors.Join(err, closeRunner())
	}
	mode := string(s.ids.Mode)
	owners, tier, note, err := newOwners(c, s)
	if err != nil {
		return nil, errors.Join(err, net.close(), closeRunner())
	}
	return &services{
		deps: builder.Deps{
			Store: s.store, Registry: registry.New(s.store, registryOptions(c, s)),
			Runner: runner, Network: net, SingleID: s.ids.SingleID(), Owners: owners, Ownership: tier, Logger: s.logger,
		},
		net:              net,
		description:      fmt.Sprintf("building with \"shale\" (%s)%s", describeMode(s, netDescription), note),
		shortDescription: "shale:" + strings.ReplaceAll(mode, " ", "-"),
		close:            func() error { return errors.Join(net.close(), closeRunner()) },
	}, nil
}

// newRunner returns the runner of steps, its state directory, and a function that ends
// it. That function removes the directory. If this process is killed, the next runner
// removes the directory. A runner in place has no directory.
func newRunner(ctx context.Context, s *session) (_ exec.Runner, dir string, end func() error, err error) {
	if s.inPlace() {
		return sandbox.NewInPlace(s.logger, copyPlain), "", func() error { return nil }, nil
	}
	runner, err := sandbox.New(ctx, sandbox.Options{
		StateDir: filepath.Join(s.store.RunRoot(), "shale"), Logger: s.logger,
		Scope: func(ctx context.Context) (string, error) {
			return scope.Enter(ctx, scope.Options{UID: s.ids.OuterUID, Cgroup: sandbox.OwnCgroup})
		},
	})
	if err != nil {
		return nil, "", nil, err
	}
	return runner, runner.Dir(), runner.Close, nil
}

// describeMode returns the part of a build's first line that describes where steps run.
func describeMode(s *session, network string) string {
	if s.inPlace() {
		return "in place, in this container: " + s.ids.Reason
	}
	text := fmt.Sprintf("ids: %s, network: %s", s.ids.Mode, network)
	if s.layers.Native {
		text += ", files: copied, which is slower: " + s.layers.Detail
	}
	return text
}
