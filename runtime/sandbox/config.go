package sandbox

import (
	"fmt"
	"math/bits"
	"runtime"
	"strconv"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	defaultShmSize = 64 << 20
	ttyGID         = 5 // owner of terminals on every distribution
)

// defaultCaps are Docker's, a80425fb as a mask.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD",
	"CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// capNames in the order of their numbers, linux/capability.h.
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER",
	"CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
	"CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
	"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
	"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
	"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
	"CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

var (
	maskedPaths = []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore",
		"/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
		"/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{
		"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
	}
)

// permittedCaps are the names of what this process may hand on.
func permittedCaps() (map[string]bool, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	set := uint64(data[1].Permitted)<<32 | uint64(data[0].Permitted)
	out := make(map[string]bool, bits.OnesCount64(set))
	for i, n := range capNames {
		if set>>i&1 != 0 {
			out[n] = true
		}
	}
	return out, nil
}

// capabilities leaves the inheritable and ambient sets empty: with them a
// command run as another user would keep what it must not have. A privileged
// one is meant to.
func (s *Spec) capabilities(dropDevices bool) (*specs.LinuxCapabilities, error) {
	have, err := permittedCaps()
	if err != nil {
		return nil, err
	}
	wanted := defaultCaps
	if s.Privileged {
		wanted = capNames
	}
	var list []string
	for _, n := range wanted {
		if have[n] && (!dropDevices || s.Privileged || n != "CAP_MKNOD") {
			list = append(list, n)
		}
	}
	if s.Privileged {
		return &specs.LinuxCapabilities{Bounding: list, Effective: list, Permitted: list, Inheritable: list, Ambient: list}, nil
	}
	return &specs.LinuxCapabilities{Bounding: list, Effective: list, Permitted: list}, nil
}

func (s *Spec) namespaces() []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace},
		{Type: specs.IPCNamespace},
		{Type: specs.UTSNamespace},
		{Type: specs.MountNamespace},
	}
	switch s.Network {
	case HostNetwork:
	case NoNetwork, "":
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace})
	default:
		ns = append(ns, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: string(s.Network)})
	}
	return ns
}

// standardMounts come before the caller's.
func (s *Spec) standardMounts(initial bool) []specs.Mount {
	shm := s.ShmSize
	if shm <= 0 {
		shm = defaultShmSize
	}
	pts := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if !s.SingleID && mapped("gid_map", ttyGID) {
		pts = append(pts, "gid="+strconv.Itoa(ttyGID))
	}
	return []specs.Mount{
		s.procMount(),
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: pts},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(shm, 10)}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		s.sysMount(initial),
	}
}

func (s *Spec) procMount() specs.Mount {
	if s.BindProc {
		return specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind", "nosuid", "noexec", "nodev"}}
	}
	return specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}}
}

// sysMount: the kernel mounts sysfs only for the owner of the network
// namespace, so on the host's network a rootless container sees the host's; so it
// does where parts of it are covered, which they are where those of /proc are.
func (s *Spec) sysMount(initial bool) specs.Mount {
	opts := []string{"nosuid", "noexec", "nodev"}
	if !s.Privileged {
		opts = append(opts, "ro")
	}
	if (s.Network != HostNetwork || initial) && !s.BindProc {
		return specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: opts}
	}
	opts = []string{"rbind", "nosuid", "noexec", "nodev"}
	if !s.Privileged {
		opts = append(opts, readOnlyOption())
	}
	return specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: opts}
}

// readOnlyOption covers mounts below a bind too, where the kernel can
// (mount_setattr(2), Linux 5.12) and no filter refuses it. To change nothing
// succeeds wherever the call is.
func readOnlyOption() string {
	if err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{}); err != nil {
		return "ro"
	}
	return "rro"
}

func bindMount(source, target string, readOnly bool, more ...string) specs.Mount {
	// Nothing a builder binds needs device nodes; a cache must not smuggle
	// them in.
	opts := append([]string{"rbind", "rprivate", "nodev"}, more...)
	if readOnly {
		opts = append(opts, readOnlyOption())
	}
	return specs.Mount{Destination: target, Type: "bind", Source: source, Options: opts}
}

func tmpfsMount(m Mount, target string, created bool) specs.Mount {
	opts := []string{"nosuid", "nodev"}
	if m.ReadOnly {
		opts = append(opts, "ro")
	}
	if m.Size > 0 {
		opts = append(opts, "size="+strconv.FormatInt(m.Size, 10))
	}
	switch {
	case m.Mode != 0:
		opts = append(opts, "mode="+strconv.FormatUint(uint64(m.Mode), 8))
	case created:
		opts = append(opts, "mode=1777")
	}
	return specs.Mount{Destination: target, Type: "tmpfs", Source: "tmpfs", Options: opts}
}

// environment is what the configuration depends on beside the Spec.
type environment struct {
	initial bool // root of the machine
	devices bool // a device cgroup protects its devices
	rootfs  string
	cgroup  string // path of the container's, empty for libcontainer's choice
	// cgroupNS hides the cgroups above the container's.
	cgroupNS bool
	// nodes are device nodes to make, rules what the device cgroup allows.
	nodes []specs.LinuxDevice
	rules []specs.LinuxDeviceCgroup
}

// runtimeSpec writes the Spec in the words of the OCI runtime specification;
// mounts have their targets resolved.
func (s *Spec) runtimeSpec(mounts []specs.Mount, env environment) (*specs.Spec, error) {
	caps, err := s.capabilities(env.initial && !env.devices)
	if err != nil {
		return nil, err
	}
	out := &specs.Spec{
		Version:  specs.Version,
		Root:     &specs.Root{Path: env.rootfs, Readonly: s.ReadonlyRootfs},
		Hostname: s.Hostname,
		Hooks:    s.Hooks,
		Mounts:   mounts,
		Process: &specs.Process{
			Args: s.Args, Env: s.Env, Cwd: s.cwd(),
			User: specs.User{UID: s.UID, GID: s.GID}, Capabilities: caps, Terminal: s.Terminal,
		},
		Linux: &specs.Linux{Namespaces: s.namespaces(), Resources: &specs.LinuxResources{}, Devices: env.nodes, CgroupsPath: env.cgroup},
	}
	if env.cgroupNS {
		out.Linux.Namespaces = append(out.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	s.Limits.resources(out.Linux.Resources)
	if s.Privileged {
		// Full device access is root's of the machine to give; elsewhere the
		// kernel refuses it whatever the cgroup says.
		out.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return out, nil
	}
	out.Linux.MaskedPaths, out.Linux.ReadonlyPaths = maskedPaths, readonlyPaths
	// First everything is refused; libcontainer adds the standard nodes and
	// the right to make (not open) any.
	out.Linux.Resources.Devices = append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, env.rules...)
	profile, err := seccomp.GetDefaultProfile(out)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	if !s.AllArchSeccomp {
		// libseccomp compiles the rules once per architecture, at every start.
		profile.Architectures = nil
	}
	out.Linux.Seccomp = profile
	return out, nil
}

// containerConfig translates for libcontainer.
func (s *Spec) containerConfig(id string, mounts []specs.Mount, env environment) (*configs.Config, *specs.Spec, error) {
	oci, err := s.runtimeSpec(mounts, env)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := specconv.CreateLibcontainerConfig(&specconv.CreateOpts{
		CgroupName:      "shale-" + id,
		Spec:            oci,
		NoNewKeyring:    true,
		RootlessCgroups: !env.devices,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("container configuration on %s: %w", runtime.GOARCH, err)
	}
	// A builder that is killed takes its containers along; see also init.go.
	cfg.ParentDeathSignal = int(unix.SIGKILL)
	umask := uint32(0o022)
	cfg.Umask = &umask
	return cfg, oci, nil
}
