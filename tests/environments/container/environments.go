package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// environment is a kind of container. The zero value is Docker's default.
type environment struct {
	// uid is the user id of the command. 0 is root.
	uid uint32
	// noNewPrivileges corresponds to allowPrivilegeEscalation: false in Kubernetes.
	noNewPrivileges bool
	// namespaces allows the system calls that make namespaces and mounts. podman's
	// seccomp profile allows them too; Kubernetes by default uses no profile.
	namespaces bool
	// unmasked leaves /proc as it is (--security-opt systempaths=unconfined).
	unmasked bool
	// readonly corresponds to Docker's --read-only.
	readonly bool
	// less drops the capabilities that CRI-O does not grant.
	less bool
}

// environments maps names to environments. The letters are those of docs/environments.md.
var environments = map[string]environment{
	"unshare":          {namespaces: true},                                   // C
	"unshare-unmasked": {namespaces: true, unmasked: true},                   // C
	"docker":           {},                                                   // D
	"docker-nnp":       {noNewPrivileges: true},                              // D
	"docker-crio":      {less: true},                                         // D
	"docker-readonly":  {readonly: true},                                     // D
	"docker-user":      {uid: 1000},                                          // E
	"restricted":       {uid: 1000, noNewPrivileges: true},                   // E
	"unshare-readonly": {namespaces: true, readonly: true},                   // C
	"unshare-nnp":      {namespaces: true, noNewPrivileges: true},            // C
	"unshare-user":     {namespaces: true, uid: 1000},                        // B
	"unshare-user-nnp": {namespaces: true, uid: 1000, noNewPrivileges: true}, // B
}

func names() []string {
	var list []string
	for name := range environments {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}

// capabilities are those that Docker grants.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

var (
	maskedPaths = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// spec returns the OCI runtime configuration of the container.
func (o options) spec(dir string) (*specs.Spec, error) {
	caps := slices.Clone(capabilities)
	if o.env.less {
		caps = slices.DeleteFunc(caps, func(c string) bool {
			return c == "CAP_MKNOD" || c == "CAP_SYS_CHROOT" || c == "CAP_NET_RAW" || c == "CAP_AUDIT_WRITE"
		})
	}
	process := &specs.Process{
		Args: o.args, Env: o.environ(), Cwd: o.cwd(),
		User: specs.User{UID: o.env.uid, GID: o.env.uid}, NoNewPrivileges: o.env.noNewPrivileges,
		Capabilities: &specs.LinuxCapabilities{Bounding: caps},
	}
	if o.env.uid == 0 {
		process.Capabilities.Effective, process.Capabilities.Permitted = caps, caps
	}
	s := &specs.Spec{
		Version: "1.0.2", Process: process, Hostname: "environment",
		Root:   &specs.Root{Path: "rootfs", Readonly: o.env.readonly},
		Mounts: o.mounts(dir),
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.MountNamespace},
			},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Access: "m"}}},
		},
	}
	if !o.env.unmasked {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = maskedPaths, readonlyPaths
	}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, err
	}
	if o.env.namespaces {
		allowNamespaces(profile)
	}
	s.Linux.Seccomp = profile
	return s, nil
}

// allowNamespaces changes Docker's profile to allow the same system calls as podman's.
func allowNamespaces(profile *specs.LinuxSeccomp) {
	free := []string{
		"unshare", "clone", "clone3", "setns", "mount", "umount", "umount2", "pivot_root", "move_mount", "open_tree", "open_tree_attr",
		"fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "sethostname", "setdomainname", "keyctl", "add_key",
	}
	var kept []specs.LinuxSyscall
	for _, rule := range profile.Syscalls {
		rule.Names = slices.DeleteFunc(slices.Clone(rule.Names), func(n string) bool { return slices.Contains(free, n) })
		if len(rule.Names) > 0 {
			kept = append(kept, rule)
		}
	}
	profile.Syscalls = append(kept, specs.LinuxSyscall{Names: free, Action: specs.ActAllow})
}

func (o options) mounts(dir string) []specs.Mount {
	list := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
	}
	for _, name := range engineFiles {
		list = append(list, specs.Mount{Destination: "/" + name, Type: "bind", Source: filepath.Join(dir, filepath.Base(name)), Options: []string{"rbind", "rprivate"}})
	}
	if o.volume != "" {
		list = append(list, specs.Mount{Destination: "/var/lib/containers", Type: "bind", Source: o.volume, Options: []string{"rbind", "rprivate"}})
	}
	for _, b := range o.binds {
		list = append(list, specs.Mount{Destination: b, Type: "bind", Source: b, Options: []string{"rbind", "rprivate"}})
	}
	return list
}

// cwd returns the working directory if the container has it, or else "/".
func (o options) cwd() string {
	wd, err := os.Getwd()
	if err != nil || !o.shows(wd) {
		return "/"
	}
	return wd
}

// shows reports whether a path of the host is visible in the container.
func (o options) shows(path string) bool {
	return slices.ContainsFunc(o.binds, func(b string) bool { return path == b || strings.HasPrefix(path, b+"/") })
}

// environ returns the environment of the command. It is this process's environment
// without variables that name directories missing in the container.
func (o options) environ() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "PWD", "USER", "LOGNAME":
			continue
		case "HOME", "XDG_RUNTIME_DIR", "TMPDIR":
			if !o.shows(value) {
				continue
			}
		}
		env = append(env, kv)
	}
	return env
}
