package exec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shale-build/shale/builder/cdi"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/sandbox"
)

// registry returns the CDI device descriptions. They are read once per build, and only if
// a step requests a device.
func (e *Executor) registry() (*cdi.Registry, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.devices == nil {
		r, err := cdi.Open(cdi.Dirs(os.LookupEnv))
		if err != nil {
			return nil, err
		}
		e.devices = r
	}
	return e.devices, nil
}

// grantDevices replaces the devices that v requests by the complete names of the devices
// that it gets. It returns a DeniedError if a device was not granted. The names are part
// of the step's cache key, so the step runs again if a new device appears.
func (e *Executor) grantDevices(v *llb.Vertex) error {
	wanted := v.Exec.GetCdiDevices()
	if len(wanted) == 0 {
		return nil
	}
	r, err := e.registry()
	if err != nil {
		return err
	}
	grants := e.Allowed.devices()
	var names, denied []string
	for _, d := range wanted {
		alias := grants.Devices[d.GetName()]
		found := r.Find(d.GetName())
		if alias != "" {
			found = r.Find(alias)
		}
		if len(found) == 0 {
			if !d.GetOptional() {
				return errors.Join(fmt.Errorf("required device %q is not registered", d.GetName()), r.Faults())
			}
			e.Logger.Info("an optional device is not registered", "device", d.GetName(), "step", v.Name)
		}
		for _, name := range found {
			switch {
			case slices.Contains(names, name):
			case alias != "" || grants.All || r.AutoAllowed(name) || granted(r, grants, name):
				names = append(names, name)
			default:
				denied = append(denied, name)
			}
		}
	}
	if len(denied) > 0 {
		return deniedDevices(denied)
	}
	v.Exec.CdiDevices = nil
	for _, name := range names {
		v.Exec.CdiDevices = append(v.Exec.CdiDevices, &pb.CDIDevice{Name: name})
	}
	return nil
}

func (a Allowed) devices() *entitlements.DevicesConfig {
	if cfg, ok := a.steps[entitlements.EntitlementDevice].(*entitlements.DevicesConfig); ok && cfg != nil {
		return cfg
	}
	return &entitlements.DevicesConfig{}
}

// granted reports whether one of the grants includes the device name.
func granted(r *cdi.Registry, grants *entitlements.DevicesConfig, name string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(grants.Devices)), func(grant string) bool {
		return slices.Contains(r.Find(grant), name)
	})
}

func deniedDevices(names []string) error {
	if len(names) == 1 {
		return &DeniedError{Message: fmt.Sprintf("device %s is requested by the build but not allowed", names[0]), Grant: "device=" + names[0]}
	}
	return &DeniedError{Message: fmt.Sprintf("devices %s are requested by the build but not allowed", strings.Join(names, ", ")), Grant: "device"}
}

// attachDevices adds the devices, mounts, variables, groups and hooks of the step's
// devices to spec.
func (s *mountSet) attachDevices(ctx context.Context, spec *sandbox.Spec) error {
	var names []string
	for _, d := range s.vertex.Exec.GetCdiDevices() {
		names = append(names, d.GetName())
	}
	if len(names) == 0 {
		return nil
	}
	r, err := s.exec.registry()
	if err != nil {
		return err
	}
	edits, err := r.Edits(names...)
	if err != nil {
		return err
	}
	spec.Env = append(spec.Env, edits.Env...)
	spec.AdditionalGIDs = append(spec.AdditionalGIDs, edits.AdditionalGIDs...)
	for _, n := range edits.Nodes {
		spec.Devices = append(spec.Devices, sandbox.Device{
			HostPath: n.HostPath, Path: n.Path, Access: access(n.Access), Mode: n.Mode, UID: orUser(n.UID, spec.UID), GID: orUser(n.GID, spec.GID),
		})
	}
	for _, m := range edits.Mounts {
		mount := sandbox.Mount{
			Type: sandbox.Tmpfs, Target: m.Path, ReadOnly: m.ReadOnly, NoSUID: m.NoSUID, NoExec: m.NoExec, Size: m.Size, Mode: m.Mode,
		}
		if m.HostPath != "" {
			mount.Type = sandbox.Bind
			if mount.Source, err = s.hold(m.HostPath, m.ReadOnly); err != nil {
				return fmt.Errorf("mount %s of a device: %w", m.HostPath, err)
			}
		}
		spec.Mounts = append(spec.Mounts, mount)
	}
	spec.Hooks = hooks(edits.Hooks)
	return ctx.Err()
}

// access returns the permissions for the device cgroup. The cgroup has no empty set of
// permissions, so "none" of CDI becomes "m" (mknod only).
func access(permissions string) string {
	if permissions == "none" {
		return "m"
	}
	return permissions
}

// orUser returns id, or the step's user if the device description names no owner and the
// user is not root.
func orUser(id *uint32, user uint32) *uint32 {
	if id == nil && user > 0 {
		return &user
	}
	return id
}

// hold bind mounts a file or directory of the host in the step's private directory.
func (s *mountSet) hold(path string, readOnly bool) (string, error) {
	source, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer source.Close()
	return s.bindOwn(fmt.Sprintf("device-%d", len(s.undo)), source, overlay.BindOptions{ReadOnly: readOnly})
}

func hooks(list []cdi.Hook) *specs.Hooks {
	if len(list) == 0 {
		return nil
	}
	out := &specs.Hooks{}
	for _, h := range list {
		hook := specs.Hook{Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout}
		switch h.Name {
		case "prestart":
			out.Prestart = append(out.Prestart, hook) //nolint:staticcheck // descriptions still name it
		case "createRuntime":
			out.CreateRuntime = append(out.CreateRuntime, hook)
		case "createContainer":
			out.CreateContainer = append(out.CreateContainer, hook)
		case "startContainer":
			out.StartContainer = append(out.StartContainer, hook)
		case "poststart":
			out.Poststart = append(out.Poststart, hook)
		case "poststop":
			out.Poststop = append(out.Poststop, hook)
		}
	}
	return out
}
