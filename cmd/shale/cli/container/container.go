// Package container runs an image once, in the foreground, for trying out what
// was built.
//
// The image's layers are seen through an overlay whose writable part is thrown
// away afterwards. Everything else about the container is that of a RUN step.
// Naming, listing or keeping containers is podman's business.
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

// Spec is what to run.
type Spec struct {
	// TopLayer is the image's, "" for an image without layers.
	TopLayer string
	// Process is complete but for what depends on the root filesystem: the
	// root itself, ids, hosts and resolv.conf. Env lacks HOME.
	Process sandbox.Spec
	// User is USER of a Dockerfile.
	User string
	// Network is none, host or "" for the default.
	Network string
	// AddHosts are NAME IP pairs.
	AddHosts [][2]string
}

// Services are what it takes to run it.
type Services struct {
	Store   *storage.Store
	Runner  exec.Runner
	Network exec.Network
	// NoMounts tells that no overlay can be laid over the store's layers.
	NoMounts bool
	// StateDir is a directory of the store for root filesystems in use.
	StateDir string
}

// Run runs the container and returns its exit status. A command that cannot
// be started gives 126 or 127 and a *sandbox.ExecError.
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
			// Only what is unmounted may be deleted.
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

// complete fills in what is known once there is a root filesystem.
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

// writePublic writes a file that every user of the container reads.
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
