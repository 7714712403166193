package exec

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/moby/buildkit/solver/pb"

	"github.com/shale-build/shale/runtime/sandbox"
)

// Network connects the containers of one build.
type Network interface {
	// Default returns the network of a step that does not select one. The first call may
	// set it up.
	Default(ctx context.Context) (sandbox.Network, error)
	// Hosts and ResolvConf return the contents of /etc/hosts and /etc/resolv.conf for a
	// step on net. Each element of extra is a name and an IP address.
	Hosts(net sandbox.Network, hostname string, extra [][2]string) []byte
	ResolvConf(net sandbox.Network) ([]byte, error)
}

// connect sets the network of the container and writes its hosts and resolv.conf files.
func (e *Executor) connect(ctx context.Context, spec *sandbox.Spec, op *pb.ExecOp, dir string) error {
	net, err := e.network(ctx, op.GetNetwork())
	if err != nil {
		return err
	}
	spec.Network = net
	var extra [][2]string
	for _, h := range op.GetMeta().GetExtraHosts() {
		extra = append(extra, [2]string{h.GetHost(), h.GetIP()})
	}
	spec.HostsAdded = len(extra) > 0
	resolv, err := e.Network.ResolvConf(net)
	if err != nil {
		return err
	}
	spec.Hosts, spec.ResolvConf = filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	for path, content := range map[string][]byte{
		spec.Hosts: e.Network.Hosts(net, spec.Hostname, extra), spec.ResolvConf: resolv,
	} {
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // every user of the container reads it
			return fmt.Errorf("write %s of the step: %w", filepath.Base(path), err)
		}
	}
	return nil
}

func (e *Executor) network(ctx context.Context, mode pb.NetMode) (sandbox.Network, error) {
	switch mode {
	case pb.NetMode_NONE:
		return sandbox.NoNetwork, nil
	case pb.NetMode_HOST:
		return sandbox.HostNetwork, nil
	default:
		return e.Network.Default(ctx)
	}
}
