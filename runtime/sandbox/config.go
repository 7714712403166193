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
	ttyGID         = 5 // the group that owns terminals on every distribution
)

// defaultCaps are Docker's default capabilities; as a mask they are a80425fb.
var defaultCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD",
	"CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP",
	"CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// capNames are the names of all capabilities, in the order of their numbers in
// linux/capability.h.
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

// permittedCaps returns the names of the capabilities that this process may give to a
// container.
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

// capabilities returns the container's capabilities. The inheritable and ambient sets
// stay empty: with them, a command that runs as another user than root would keep
// capabilities that it must not have. A privileged command keeps them on purpose. If
// dropDevices is set, a command that is not privileged does not get CAP_MKNOD.
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

// standardMounts returns the mounts that every container has. They come before the mounts
// of the Spec.
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

// sysMount returns the mount for /sys. The kernel mounts a new sysfs only for the owner
// of the network namespace. So a rootless container on the host's network gets a bind
// mount of the host's /sys. It also gets one if parts of the host's /sys are covered by
// other mounts; that is so if parts of /proc are covered (BindProc).
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

// readOnlyOption returns "rro", which also makes the mounts below a bind mount read-only,
// if the kernel supports it (mount_setattr(2), Linux 5.12) and no seccomp filter refuses
// it. Otherwise it returns "ro". The call with no changes is a test: it succeeds if the
// kernel has the system call.
func readOnlyOption() string {
	if err := unix.MountSetattr(-1, "", 0, &unix.MountAttr{}); err != nil {
		return "ro"
	}
	return "rro"
}

func bindMount(source, target string, readOnly bool, more ...string) specs.Mount {
	// A bind mount of a builder needs no device nodes. "nodev" keeps a step from bringing
	// them in through a cache.
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

// environment holds the inputs of the configuration that are not in the Spec.
type environment struct {
	initial bool // the process is the machine's root
	devices bool // a device cgroup protects the machine's devices
	rootfs  string
	cgroup  string // the container's cgroup; libcontainer chooses it if empty
	// cgroupNS hides the cgroups above the container's cgroup.
	cgroupNS bool
	// nodes are the device nodes to create. rules are the accesses that the device cgroup
	// allows.
	nodes []specs.LinuxDevice
	rules []specs.LinuxDeviceCgroup
}

// runtimeSpec translates s to an OCI runtime specification. The targets of mounts must be
// resolved.
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
		// Only the machine's root can give full access to devices. For other users the
		// kernel refuses it, even if the cgroup allows it.
		out.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return out, nil
	}
	out.Linux.MaskedPaths, out.Linux.ReadonlyPaths = maskedPaths, readonlyPaths
	// The first rule refuses all access. libcontainer adds rules for the standard nodes
	// and for creating, but not opening, any node.
	out.Linux.Resources.Devices = append([]specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}, env.rules...)
	profile, err := seccomp.GetDefaultProfile(out)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: %w", err)
	}
	if !s.AllArchSeccomp {
		// libseccomp compiles the rules once per architecture at every start, which takes
		// time.
		profile.Architectures = nil
	}
	out.Linux.Seccomp = profile
	return out, nil
}

// containerConfig translates s to libcontainer's configuration. It also returns the OCI
// runtime specification.
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
	// If the builder is killed, the kernel kills its containers; see also package
	// initproc.
	cfg.ParentDeathSignal = int(unix.SIGKILL)
	umask := uint32(0o022)
	cfg.Umask = &umask
	return cfg, oci, nil
}
