// Package container runs an image once, in the foreground, so that users can try an
// image that they built.
//
// The container sees the layers of the image through an overlay, or natively if
// Services.NoMounts is set. Its changes are removed when it ends. In all other
// respects, the container is like that of a RUN step. The package does not name, list
// or keep containers; podman does.
package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shale-build/shale/builder/exec"
	"github.com/shale-build/shale/builder/identity"
	"github.com/shale-build/shale/builder/rootfs"
	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/storage"
)

// Spec describes the container to run.
type Spec struct {
	// TopLayer is the ID of the image's top layer, or "" for an image without layers.
	TopLayer string
	// Process describes the process of the container. Run sets the fields that depend
	// on the root file system or the network: Rootfs, Upper, the ids, Network, Hosts
	// and ResolvConf. It adds HOME to Env if Env does not contain it.
	Process sandbox.Spec
	// User is the user and group of the process, in the form of USER in a Dockerfile.
	User string
	// Network is "none" or "host". Any other value selects the default network.
	Network string
	// AddHosts are pairs of a host name and an IP address to add to /etc/hosts.
	AddHosts [][2]string
}

// Services holds the parts that Run needs.
type Services struct {
	Store   *storage.Store
	Runner  exec.Runner
	Network exec.Network
	// NoMounts reports whether the store's layers must be shown natively, because no
	// overlay can be mounted over them.
	NoMounts bool
	// StateDir is a directory of the store for root file systems in use.
	StateDir string
}

// Run runs the container and returns its exit status. If the command cannot be started,
// the error is a *sandbox.ExecError with the status 126 or 127.
func Run(ctx context.Context, s Services, spec Spec) (code int, err error) {
	work, err := rootfs.OpenWorkspace(ctx, s.StateDir)
	if err != nil {
		return 0, err
	}
	mounts := rootfs.New(ctx, s.Store, work.Dir, spec.Process.Owners, nil)
	if s.NoMounts {
		mounts.MountNothing(nil)
	}
	defer func() {
		closeErr := mounts.Close()
		if closeErr == nil {
			// The directory must not be removed before everything in it is unmounted.
			closeErr = work.Remove()
		}
		err = errors.Join(err, closeErr)
	}()
	lower, err := mounts.Lowers(spec.TopLayer)
	if err != nil {
		return 0, err
	}
	root, release, err := mounts.ScratchOf(ctx, lower)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, release()) }()
	process, err := complete(ctx, s, spec, root, work.Dir)
	if err != nil {
		return 0, err
	}
	process.Upper = mounts.Upper(root)
	return s.Runner.Run(ctx, process)
}

// complete returns spec.Process with the fields that require a root file system. root
// is its path. complete writes the hosts and resolv.conf files to dir.
func complete(ctx context.Context, s Services, spec Spec, root, dir string) (sandbox.Spec, error) {
	p := spec.Process
	user, err := identity.Resolve(root, spec.User)
	if err != nil {
		return p, fmt.Errorf("resolve user %q: %w", spec.User, err)
	}
	p.Rootfs, p.UID, p.GID, p.AdditionalGIDs = root, user.UID, user.GID, user.AdditionalGIDs
	if !hasVariable(p.Env, "HOME") {
		p.Env = append(p.Env, "HOME="+user.Home)
	}
	if err := choose(ctx, s, spec, &p); err != nil {
		return p, err
	}
	resolv, err := s.Network.ResolvConf(p.Network)
	if err != nil {
		return p, err
	}
	p.Hosts, p.ResolvConf = filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	return p, errors.Join(
		writePublic(p.Hosts, s.Network.Hosts(p.Network, p.Hostname, spec.AddHosts)),
		writePublic(p.ResolvConf, resolv))
}

func choose(ctx context.Context, s Services, spec Spec, p *sandbox.Spec) (err error) {
	switch spec.Network {
	case "none":
		p.Network = sandbox.NoNetwork
	case "host":
		p.Network = sandbox.HostNetwork
	default:
		p.Network, err = s.Network.Default(ctx)
	}
	return err
}

// writePublic writes a file that every user of the container may read.
func writePublic(path string, data []byte) error {
	if err := os.WriteFile(path, data, 0o644); err != nil { //nolint:gosec // as it says
		return fmt.Errorf("write %s of the container: %w", filepath.Base(path), err)
	}
	return nil
}

func hasVariable(env []string, name string) bool {
	for _, kv := range env {
		if strings.HasPrefix(kv, name+"=") {
			return true
		}
	}
	return false
}
