package cli

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/runtime/network"
	"github.com/shale-build/shale/runtime/sandbox"
)

// stepNetwork is the network of one build or container. It is set up when the first
// step needs it: if all steps come from the cache, no network is needed.
type stepNetwork struct {
	opts   network.Options
	logger *slog.Logger
	// said is the network that shale announced to the user.
	said network.Outlook

	mu    sync.Mutex
	ready *network.Network
	err   error
}

var _ exec.Network = (*stepNetwork)(nil)

// networkMemory is the file in the volatile state of the store that records whether a
// private network works.
const networkMemory = "shale-network.json"

// newNetwork returns the network with the given name and its description. dir must be a
// directory for its files. If the user requires a private network and the last build
// did not have one, newNetwork sets it up immediately. If that fails, the build must
// not fetch or run anything.
func newNetwork(ctx context.Context, s *session, dir, name string) (*stepNetwork, string, error) {
	mode, err := network.ParseMode(name)
	if err != nil {
		return nil, "", err
	}
	if s.inPlace() {
		if mode == network.None || mode == network.Private {
			return nil, "", &sandbox.NotInPlaceError{What: "--network=" + name}
		}
		mode = network.Host
	}
	n := &stepNetwork{logger: s.logger, opts: network.Options{
		Mode: mode, Dir: dir, Memory: filepath.Join(s.store.RunRoot(), networkMemory), Logger: s.logger,
	}}
	n.said = network.Expect(mode, n.opts.Memory, "")
	if mode == network.Private && !n.said.Tried {
		if _, err := n.Default(ctx); err != nil {
			return nil, "", err
		}
	}
	description := string(n.said.Mode)
	if n.said.Reason != "" {
		description += ", as " + n.said.Reason
	}
	return n, description, nil
}

// unsaid must be called by commands that do not announce the network. If they use the
// network of the host, a warning is then logged.
func (n *stepNetwork) unsaid() {
	if n.opts.Mode == network.Default {
		n.said = network.Outlook{Mode: network.Private}
	}
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
	if n.ready, err = network.Setup(ctx, n.opts); err != nil {
		return err
	}
	switch n.ready.Mode {
	case n.said.Mode:
	case network.Host:
		n.logger.Warn("steps share the host's network", "reason", n.ready.Reason)
	default:
		n.logger.Warn("steps have a private network, other than when it was last tried", "reason then", n.said.Reason)
	}
	return nil
}

// Hosts implements exec.Network.
func (n *stepNetwork) Hosts(_ sandbox.Network, hostname string, extra [][2]string) []byte {
	entries := make([]network.HostEntry, 0, len(extra))
	for _, e := range extra {
		// Invalid addresses were refused when the command line was parsed.
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
	if n.ready == nil {
		return nil
	}
	return n.ready.Close()
}
