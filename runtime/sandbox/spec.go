package sandbox

import (
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/shale-build/shale/runtime/recorded"
)

// Spec describes one container.
type Spec struct {
	// ID names the container's state and cgroup; unique among those running.
	// Empty for a random one.
	ID string
	// Rootfs is the absolute path of a mounted, writable root filesystem.
	Rootfs string
	// ReadonlyRootfs makes it read-only for the command. It still has to be
	// writable for the runner, which may have to create mount points.
	ReadonlyRootfs bool

	Args []string
	Env  []string
	// Cwd is absolute, in the container; created for the user when missing.
	// Empty means the root.
	Cwd            string
	UID, GID       uint32
	AdditionalGIDs []uint32
	Hostname       string

	// Mounts are made in order, after the standard ones; parents first.
	Mounts  []Mount
	Devices []Device
	// Hooks are programs of the host that libcontainer runs while it makes
	// and removes the container. They find its description in config.json of
	// the bundle that the state on their standard input names, without the
	// command's variables.
	Hooks   *specs.Hooks
	Network Network
	// Hosts and ResolvConf are paths of files on the host that appear
	// read-only at /etc/hosts and /etc/resolv.conf; empty for none.
	Hosts, ResolvConf string
	// HostsAdded tells that Hosts names more than the machine does.
	HostsAdded bool

	Rlimits []Rlimit
	// Limits that Runner.Unavailable names are left out.
	Limits Limits
	// ShmSize is the size of /dev/shm in bytes; 0 means 64 MiB.
	ShmSize int64
	// Privileged gives all capabilities the process itself has, to users
	// other than root as well, no seccomp filter, no masked paths, a
	// writable /sys and the devices that such steps use (RUN
	// --security=insecure). In a user namespace the capabilities hold for
	// what belongs to it, and the kernel goes on refusing the rest: other
	// devices, modules, the clock, mounting block devices.
	Privileged bool
	// AllArchSeccomp lets the filter accept the 32-bit system calls of the
	// machine too; costs some 20 ms. Without it such programs are killed.
	AllArchSeccomp bool
	// SingleID says that root is the only mapped id: supplementary groups
	// are dropped, as they cannot be set.
	SingleID bool
	// Owners, if not nil, records the owners that the one id of the user
	// namespace cannot give: the command may be any user and change to any, and
	// sees what Ownership says. Otherwise only mapped ids can be used.
	Owners    *recorded.Owners
	Ownership recorded.Tier
	// Upper is the overlay's directory of changes to Rootfs, if it is one.
	Upper string
	// BindProc shows the builder's /proc instead of a fresh one, for
	// containers in which the kernel refuses to mount it.
	BindProc bool

	// Stdin is the command's input; nil means /dev/null. Reading from it may
	// go on after Run returned, until its next Read ends.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // nil discards

	// StopSignal asks the command to end when the context of Run does; after
	// StopTimeout it is killed nevertheless. 0 kills at once.
	StopSignal  syscall.Signal
	StopTimeout time.Duration
	// Grace returns how long all processes of the command have after a SIGTERM
	// before they are killed, given the cause of the end of Run's context; 0 kills
	// at once. It is asked where StopSignal is 0; nil is as one that returns 0.
	Grace func(cause error) time.Duration

	// Terminal gives the command a terminal; Stderr is not used then.
	Terminal bool
	// Size is the terminal's first size.
	Size WinSize
	// Resize delivers later sizes; may be nil.
	Resize <-chan WinSize
}

// WinSize is a terminal's size in characters.
type WinSize struct{ Width, Height uint16 }

// MountType tells the two kinds of Mount apart.
type MountType int

// The kinds of Mount.
const (
	Bind MountType = iota
	Tmpfs
)

// Mount is something put into the container.
type Mount struct {
	Type MountType
	// Source is a host path nobody but the builder can change; Bind only.
	Source string
	// Target is absolute, in the container; symbolic links in it are
	// followed inside the root filesystem.
	Target   string
	ReadOnly bool
	// Kept and InMemory are for an InPlace, which has to know what it can
	// copy: a Kept source gets what the command makes of it, one InMemory
	// must not get onto a disk.
	Kept, InMemory bool
	// NoSUID and NoExec forbid set-id programs, and any program, of a Bind.
	NoSUID, NoExec bool
	// Size limits a Tmpfs, in bytes; 0 means half the memory.
	Size int64
	// Mode of a Tmpfs's root; 0 takes that of the directory it covers, or
	// 01777 for one that did not exist.
	Mode uint32
}

// Network is NoNetwork (also the zero value's meaning), HostNetwork or the path
// of a network namespace that belongs to the current user namespace.
type Network string

// Networks without a path.
const (
	NoNetwork   Network = "none"
	HostNetwork Network = "host"
)

// Rlimit is a resource limit; Type is a name as RLIMIT_NOFILE.
type Rlimit struct {
	Type       string
	Soft, Hard uint64
}

// ExecError tells that the command could not be started, in the words and
// with the exit code a shell or Docker uses: 127 for a command that is not
// there, 126 for one that cannot be run.
type ExecError struct {
	Code    int
	Message string
}

func (e *ExecError) Error() string { return e.Message }

// ErrUnmapped is wrapped when a user or group has no id in the user namespace.
var ErrUnmapped = errors.New("the id is beyond the subordinate ids of this user; use --isolation=recorded with a store of its own (--root)")

func (s *Spec) validate() error {
	switch {
	case !path.IsAbs(s.Rootfs):
		return fmt.Errorf("root filesystem %q: path is not absolute", s.Rootfs)
	case len(s.Args) == 0 || s.Args[0] == "":
		return errors.New("no command given")
	case s.Cwd != "" && !path.IsAbs(s.Cwd):
		return fmt.Errorf("working directory %q: path is not absolute", s.Cwd)
	case s.Network != "" && s.Network != NoNetwork && s.Network != HostNetwork && !path.IsAbs(string(s.Network)):
		return fmt.Errorf("unknown network %q", s.Network)
	}
	for _, m := range s.Mounts {
		if !path.IsAbs(m.Target) || path.Clean(m.Target) == "/" {
			return fmt.Errorf("mount target %q: not an absolute path below the root", m.Target)
		}
		if m.Type == Bind && !path.IsAbs(m.Source) {
			return fmt.Errorf("mount %s: source %q is not an absolute path", m.Target, m.Source)
		}
	}
	for _, d := range s.Devices {
		if !path.IsAbs(d.HostPath) || !path.IsAbs(d.Path) || path.Clean(d.Path) == "/" {
			return fmt.Errorf("device %q at %q: not absolute paths", d.HostPath, d.Path)
		}
	}
	for _, l := range s.Rlimits {
		if _, ok := rlimits[l.Type]; !ok {
			return fmt.Errorf("unknown resource limit %q", l.Type)
		}
	}
	for _, text := range append(append([]string{s.Cwd, s.Hostname}, s.Args...), s.Env...) {
		if strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("%q holds a NUL byte", text)
		}
	}
	return s.checkIDs()
}

func (s *Spec) checkIDs() error {
	if s.Owners != nil {
		return nil
	}
	if !mapped("uid_map", s.UID) {
		return fmt.Errorf("run as user %d: %w", s.UID, ErrUnmapped)
	}
	if !mapped("gid_map", s.GID) {
		return fmt.Errorf("run as group %d: %w", s.GID, ErrUnmapped)
	}
	if s.SingleID {
		return nil
	}
	for _, g := range s.AdditionalGIDs {
		if !mapped("gid_map", g) {
			return fmt.Errorf("run with group %d: %w", g, ErrUnmapped)
		}
	}
	return nil
}

func (s *Spec) cwd() string { return path.Clean("/" + s.Cwd) }
