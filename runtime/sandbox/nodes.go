package sandbox

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Device is a device node that the container gets.
type Device struct {
	// HostPath is the device node on the host. Path is its path in the container.
	HostPath, Path string
	// Access is any combination of r, w and m, as in device cgroups. If it is empty, all
	// three are allowed.
	Access string
	// Mode, UID and GID are for a node that the runner creates; nil means 0666 and root.
	// In a user namespace the host's own node is used, and it keeps its mode and owner.
	Mode     *os.FileMode
	UID, GID *uint32
}

// place adds the devices to the container. If initial is set, the process is the
// machine's root: the container gets new nodes, and rules of the device cgroup allow to
// open them. In a user namespace, a new node cannot open any device. So the host's nodes
// are bind mounted; the container's processes can open them if the host's permissions
// allow it.
func (s *Spec) place(st *stubs, initial bool) (nodes []specs.LinuxDevice, rules []specs.LinuxDeviceCgroup, binds []specs.Mount, err error) {
	devices := s.Devices
	switch {
	case s.Privileged && initial:
		nodes = privilegedNodes()
	case s.Privileged:
		devices = append(privilegedDevices(), devices...)
	}
	for _, d := range devices {
		node, err := d.stat()
		if err != nil {
			return nil, nil, nil, err
		}
		access := d.Access
		if access == "" {
			access = "rwm"
		}
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: node.Type, Major: &node.Major, Minor: &node.Minor, Access: access})
		if initial && strings.HasPrefix(node.Path, "/dev/") {
			nodes = append(nodes, node)
			continue
		}
		target, _, err := st.place(d.Path, false)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("device %s: %w", d.Path, err)
		}
		binds = append(binds, specs.Mount{Destination: target, Type: "bind", Source: d.HostPath, Options: []string{"bind", "rprivate", "nosuid", "noexec"}})
	}
	return nodes, rules, binds, nil
}

func (d Device) stat() (specs.LinuxDevice, error) {
	var info unix.Stat_t
	if err := unix.Stat(d.HostPath, &info); err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("device %s: %w", d.HostPath, err)
	}
	node := specs.LinuxDevice{
		Path: path.Clean(d.Path), FileMode: d.Mode, UID: d.UID, GID: d.GID,
		Major: int64(unix.Major(info.Rdev)), Minor: int64(unix.Minor(info.Rdev)),
	}
	switch info.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		node.Type = "c"
	case unix.S_IFBLK:
		node.Type = "b"
	default:
		return node, fmt.Errorf("device %s: not a device node", d.HostPath)
	}
	return node, nil
}

// known are the devices that BuildKit gives to an insecure step. The numbers are from
// linux/major.h and Documentation/admin-guide/devices.txt.
var known = []specs.LinuxDevice{
	{Path: "/dev/kmsg", Type: "c", Major: 1, Minor: 11},
	{Path: "/dev/cuse", Type: "c", Major: 10, Minor: 203},
	{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229},
	{Path: "/dev/kvm", Type: "c", Major: 10, Minor: 232},
	{Path: "/dev/net/tun", Type: "c", Major: 10, Minor: 200},
	{Path: "/dev/loop-control", Type: "c", Major: 10, Minor: 237},
}

const loopMajor, loops = 7, 8

// privilegedNodes returns the nodes of an insecure step. A node may exist before its
// driver is loaded; opening the node loads the driver.
func privilegedNodes() []specs.LinuxDevice {
	nodes := append([]specs.LinuxDevice(nil), known...)
	for i := range int64(loops) {
		nodes = append(nodes, specs.LinuxDevice{Path: fmt.Sprintf("/dev/loop%d", i), Type: "b", Major: loopMajor, Minor: i})
	}
	return nodes
}

// privilegedDevices returns those of the host's privileged nodes that the user may read.
func privilegedDevices() []Device {
	var out []Device
	for _, n := range privilegedNodes() {
		d := Device{HostPath: n.Path, Path: n.Path}
		if _, err := d.stat(); err == nil && unix.Access(n.Path, unix.R_OK) == nil {
			out = append(out, d)
		}
	}
	return out
}
