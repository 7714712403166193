package cdi

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	specs "tags.cncf.io/container-device-interface/specs-go"
)

// Edits are the changes that devices make to a container.
type Edits struct {
	Env            []string
	Nodes          []Node
	Mounts         []Mount
	Hooks          []Hook
	AdditionalGIDs []uint32
}

// Node is a device node. Access has the syntax of device cgroups. Mode, UID and GID are
// nil for the default values.
type Node struct {
	HostPath, Path, Access string
	Mode                   *os.FileMode
	UID, GID               *uint32
}

// Mount is a bind mount of a file or directory of the host, or a tmpfs if HostPath is
// empty.
type Mount struct {
	HostPath, Path           string
	ReadOnly, NoSUID, NoExec bool
	Size                     int64
	Mode                     uint32
}

// Hook is a program of the host that prepares the container. Name is the name of the hook
// in the OCI runtime specification, which says when the program runs.
type Hook struct {
	Name      string
	Path      string
	Args, Env []string
	Timeout   *int
}

// Edits returns the edits of the devices with these complete names. If several devices
// are in one description file, the common edits of that file appear once, before those of
// the devices. It returns an error if a device is not registered or needs an edit that is
// not supported.
func (r *Registry) Edits(names ...string) (Edits, error) {
	var out Edits
	var seen []*cdi.Spec
	for _, name := range names {
		d := r.cache.GetDevice(name)
		if d == nil {
			return Edits{}, fmt.Errorf("device %q is not registered", name)
		}
		edits := []*specs.ContainerEdits{&d.ContainerEdits}
		if spec := d.GetSpec(); !slices.Contains(seen, spec) {
			seen = append(seen, spec)
			edits = append([]*specs.ContainerEdits{&spec.ContainerEdits}, edits...)
		}
		for _, e := range edits {
			if err := out.add(e); err != nil {
				return Edits{}, fmt.Errorf("device %s: %w", name, err)
			}
		}
	}
	return out, nil
}

func (e *Edits) add(in *specs.ContainerEdits) error {
	switch {
	case in.IntelRdt != nil:
		return errors.New("intelRdt: a build has no classes of service of its own")
	case len(in.NetDevices) > 0:
		return fmt.Errorf("netDevices: %s cannot be moved into a step", in.NetDevices[0].HostInterfaceName)
	}
	e.Env = append(e.Env, in.Env...)
	e.AdditionalGIDs = append(e.AdditionalGIDs, in.AdditionalGIDs...)
	for _, n := range in.DeviceNodes {
		node, err := nodeOf(n)
		if err != nil {
			return fmt.Errorf("device node %s: %w", n.Path, err)
		}
		e.Nodes = append(e.Nodes, node)
	}
	for _, m := range in.Mounts {
		mount, err := mountOf(m)
		if err != nil {
			return fmt.Errorf("mount at %s: %w", m.ContainerPath, err)
		}
		e.Mounts = append(e.Mounts, mount)
	}
	for _, h := range in.Hooks {
		e.Hooks = append(e.Hooks, Hook{Name: h.HookName, Path: h.Path, Args: h.Args, Env: h.Env, Timeout: h.Timeout})
	}
	return nil
}

func nodeOf(n *specs.DeviceNode) (Node, error) {
	if n.Type != "" && n.Type != "b" && n.Type != "c" && n.Type != "u" {
		return Node{}, fmt.Errorf("type %q is not a device", n.Type)
	}
	out := Node{HostPath: n.HostPath, Path: n.Path, Access: n.Permissions, Mode: n.FileMode, UID: n.UID, GID: n.GID}
	if out.HostPath == "" {
		out.HostPath = n.Path
	}
	return out, nil
}

func mountOf(m *specs.Mount) (Mount, error) {
	out := Mount{HostPath: m.HostPath, Path: m.ContainerPath}
	switch m.Type {
	case "", "bind", "none":
	case "tmpfs":
		out.HostPath = ""
	default:
		return Mount{}, fmt.Errorf("type %q is not available, only bind and tmpfs", m.Type)
	}
	for _, option := range m.Options {
		if err := out.option(option); err != nil {
			return Mount{}, err
		}
	}
	return out, nil
}

// option parses a mount option that is supported in a step. Options for device nodes and
// for propagation have no effect: device nodes on such a mount never work, and mounts in
// a step are not visible outside it.
func (m *Mount) option(option string) (err error) {
	key, value, _ := strings.Cut(option, "=")
	switch key {
	case "bind", "rbind", "rw", "nodev", "private", "rprivate", "slave", "rslave", "suid", "exec":
	case "ro":
		m.ReadOnly = true
	case "nosuid":
		m.NoSUID = true
	case "noexec":
		m.NoExec = true
	case "size":
		m.Size, err = units.RAMInBytes(value)
	case "mode":
		var mode uint64
		mode, err = strconv.ParseUint(value, 8, 12)
		m.Mode = uint32(mode)
	default:
		return fmt.Errorf("option %q is not available", option)
	}
	if err != nil {
		return fmt.Errorf("option %q: %w", option, err)
	}
	return nil
}
