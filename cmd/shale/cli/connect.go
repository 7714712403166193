package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/storage/registry"
)

// services are the parts a build or a container is made with, and the words
// that describe them.
type services struct {
	deps builder.Deps
	// description and shortDescription tell in which environment steps run.
	description, shortDescription string
	close                         func() error
}

// newServices connects the parts. network is the value of --network.
func newServices(c *cli.Context, s *session, network string) (*services, error) {
	runner, err := sandbox.New(sandbox.Options{
		StateDir: filepath.Join(s.store.RunRoot(), "shale"), Logger: s.logger,
	})
	if err != nil {
		return nil, err
	}
	net, netDescription, closeNetwork, err := newNetwork(c.Context, s, network)
	if err != nil {
		return nil, errors.Join(err, runner.Close())
	}
	mode := string(s.ids.Mode)
	owners, tier, note, err := newOwners(c, s)
	if err != nil {
		return nil, errors.Join(err, closeNetwork(), runner.Close())
	}
	return &services{
		deps: builder.Deps{
			Store: s.store, Registry: registry.New(s.store, registryOptions(c, s)),
			Runner: runner, Network: net, SingleID: s.ids.SingleID(), Owners: owners, Ownership: tier, Logger: s.logger,
		},
		description:      fmt.Sprintf("building with \"shale\" (ids: %s, network: %s)%s", mode, netDescription, note),
		shortDescription: "shale:" + strings.ReplaceAll(mode, " ", "-"),
		close:            func() error { return errors.Join(closeNetwork(), runner.Close()) },
	}, nil
}
