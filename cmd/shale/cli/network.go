package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/runtime/network"
	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/storage"
)

// stepNetwork is the network of one build or container. It is set up when the
// first step needs it: a build that is wholly cached needs none.
type stepNetwork struct {
	store  *storage.Store
	mode   network.Mode
	logger *slog.Logger

	mu    sync.Mutex
	ready *network.Network
	err   error
	dir   string
}

var _ exec.Network = (*stepNetwork)(nil)

// newNetwork returns the network, what it is called and what ends it.
func newNetwork(_ context.Context, s *session, name string) (*stepNetwork, string, func() error, error) {
	mode, err := network.ParseMode(name)
	if err != nil {
		return nil, "", nil, err
	}
	if s.inPlace() {
		if mode == network.None || mode == network.Private {
			return nil, "", nil, &sandbox.NotInPlaceError{What: "--network=" + name}
		}
		mode = network.Host
	}
	n := &stepNetwork{store: s.store, mode: mode, logger: s.logger}
	return n, string(network.Expect(mode)), n.close, nil
}

// Default implements exec.Network.
func (n *stepNetwork) Default(ctx context.Context) (sandbox.Network, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ready == nil && n.err == nil {
		n.err = n.setUp(ctx)
	}
	if n.err != nil {
		return "", n.err
	}
	switch n.ready.Mode {
	case network.None:
		return sandbox.NoNetwork, nil
	case network.Host:
		return sandbox.HostNetwork, nil
	default:
		return sandbox.Network(n.ready.Path), nil
	}
}

func (n *stepNetwork) setUp(ctx context.Context) (err error) {
	if n.dir, err = os.MkdirTemp(n.store.RunRoot(), "shale-net-"); err != nil {
		return fmt.Errorf("make the network's directory: %w", err)
	}
	n.ready, err = network.Setup(ctx, network.Options{Mode: n.mode, Dir: n.dir, Logger: n.logger})
	if err != nil {
		return err
	}
	switch {
	case n.ready.Reason == "":
	case n.ready.Mode != network.Expect(n.mode):
		n.logger.Warn("steps share the host's network, other than announced", "reason", n.ready.Reason)
	default:
		n.logger.Info("steps share the host's network", "reason", n.ready.Reason)
	}
	return nil
}

// Hosts implements exec.Network.
func (n *stepNetwork) Hosts(_ sandbox.Network, hostname string, extra [][2]string) []byte {
	entries := make([]network.HostEntry, 0, len(extra))
	for _, e := range extra {
		// What is no address was refused when the command line was read.
		if ip, err := netip.ParseAddr(e[1]); err == nil {
			entries = append(entries, network.HostEntry{Name: e[0], IP: ip})
		}
	}
	return network.Hosts(hostname, entries)
}

// ResolvConf implements exec.Network.
func (n *stepNetwork) ResolvConf(net sandbox.Network) ([]byte, error) {
	mode := network.Private
	switch net {
	case sandbox.NoNetwork, "":
		mode = network.None
	case sandbox.HostNetwork:
		mode = network.Host
	}
	return network.ResolvConf(mode, network.ResolvOptions{})
}

func (n *stepNetwork) close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var err error
	if n.ready != nil {
		err = n.ready.Close()
	}
	if n.dir != "" {
		err = errors.Join(err, os.Remove(n.dir))
	}
	return err
}
