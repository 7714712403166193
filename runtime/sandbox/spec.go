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

// Spec describes one container and its command.
type Spec struct {
	// ID names the container's state and its cgroup. It must be unique among running
	// containers. If it is empty, Run chooses a random one.
	ID string
	// Rootfs is the absolute path of a mounted, writable root file system.
	Rootfs string
	// ReadonlyRootfs makes Rootfs read-only for the command. It must still be writable
	// for the runner, which may have to create mount points in it.
	ReadonlyRootfs bool

	Args []string
	Env  []string
	// Cwd is the working directory, an absolute path in the container. If it does not
	// exist, it is created and given to the user. If it is empty, Cwd is the root
	// directory.
	Cwd            string
	UID, GID       uint32
	AdditionalGIDs []uint32
	Hostname       string

	// Mounts are made in order, after the standard mounts. A parent must come before its
	// children.
	Mounts  []Mount
	Devices []Device
	// Hooks are programs of the host that libcontainer runs while it creates and removes
	// the container. They read the container's state on their standard input. The state
	// names the bundle directory, whose config.json describes the container without the
	// command's environment variables.
	Hooks   *specs.Hooks
	Network Network
	// Hosts and ResolvConf are the paths of files on the host. They are mounted read-only
	// at /etc/hosts and /etc/resolv.conf. If a path is empty, nothing is mounted.
	Hosts, ResolvConf string
	// HostsAdded is true if Hosts has entries that the machine's own /etc/hosts lacks.
	// Only an InPlace uses it: otherwise it keeps the file that the container engine
	// mounted.
	HostsAdded bool

	Rlimits []Rlimit
	// Limits are the container's resource limits. Run leaves out those that
	// Runner.Unavailable names.
	Limits Limits
	// ShmSize is the size of /dev/shm in bytes; 0 means 64 MiB.
	ShmSize int64
	// Privileged is for RUN --security=insecure. The command gets all capabilities of the
	// process, also if its user is not root. It gets no seccomp filter and no masked
	// paths, a writable /sys and the devices that such steps use. In a user namespace the
	// capabilities are valid only for resources that belong to the namespace. The kernel
	// still refuses access to other devices, loading modules, setting the clock and
	// mounting block devices.
	Privileged bool
	// AllArchSeccomp makes the seccomp filter accept the machine's 32-bit system calls
	// too. That costs about 20 ms. Without it, 32-bit programs are killed.
	AllArchSeccomp bool
	// SingleID must be set if root is the only mapped id. Supplementary groups cannot be
	// set then, so they are dropped.
	SingleID bool
	// Owners, if not nil, records the owners that the one mapped id of the user namespace
	// cannot express. The command may then have any user id and change to any other, and
	// sees recorded ownership as Ownership defines. If Owners is nil, only mapped ids can
	// be used.
	Owners    *recorded.Owners
	Ownership recorded.Tier
	// Upper is the upper directory of the overlay that is mounted at Rootfs. It is empty
	// if Rootfs is not an overlay.
	Upper string
	// BindProc mounts the builder's /proc in the container instead of a new one. It is
	// for outer containers in which the kernel refuses to mount a new /proc.
	BindProc bool

	// Stdin is the command's input; nil means /dev/null. A Read of Stdin may still be
	// running after Run returned.
	Stdin          io.Reader
	Stdout, Stderr io.Writer // nil discards the output

	// StopSignal is sent to the command when the context of Run ends. If the command has
	// not ended after StopTimeout, the container is killed. If StopSignal is 0, Grace
	// decides.
	StopSignal  syscall.Signal
	StopTimeout time.Duration
	// Grace is used if StopSignal is 0. Its argument is the cause of the end of Run's
	// context. It returns how long all processes of the command have after SIGTERM until
	// they are killed. They are killed at once if it returns 0 or if Grace is nil.
	Grace func(cause error) time.Duration

	// Terminal gives the command a terminal. Stderr is not used then.
	Terminal bool
	// Size is the terminal's first size.
	Size WinSize
	// Resize delivers later sizes. It may be nil.
	Resize <-chan WinSize
}

// WinSize is a terminal's size in characters.
type WinSize struct{ Width, Height uint16 }

// MountType is the kind of a Mount.
type MountType int

// The kinds of Mount.
const (
	Bind MountType = iota
	Tmpfs
)

// Mount is a bind mount or a tmpfs in the container.
type Mount struct {
	Type MountType
	// Source is the path of a file or directory on the host, for a Bind only. Only the
	// builder may be able to change it.
	Source string
	// Target is an absolute path in the container. Symbolic links in it are followed
	// inside the root file system.
	Target   string
	ReadOnly bool
	// Kept and InMemory are used by an InPlace only. They determine how it may copy the
	// source. With Kept, the source must get the changes that the command makes. With
	// InMemory, the content must not be written to a disk.
	Kept, InMemory bool
	// NoSUID forbids set-user-ID and set-group-ID programs in a Bind. NoExec forbids all
	// programs.
	NoSUID, NoExec bool
	// Size limits a Tmpfs, in bytes; 0 means half of the memory.
	Size int64
	// Mode is the mode of a Tmpfs's root directory. 0 means the mode of the directory
	// that it covers, or 01777 if that did not exist.
	Mode uint32
}

// Network is NoNetwork, HostNetwork, or the path of a network namespace that belongs to
// the present user namespace. The zero value means NoNetwork.
type Network string

// Networks without a path.
const (
	NoNetwork   Network = "none"
	HostNetwork Network = "host"
)

// Rlimit is a resource limit. Type is a name of getrlimit(2), for example RLIMIT_NOFILE.
type Rlimit struct {
	Type       string
	Soft, Hard uint64
}

// ExecError is returned if the command could not be started. Message and Code are those
// of a shell or Docker: Code is 127 if the program does not exist and 126 if it cannot be
// executed.
type ExecError struct {
	Code    int
	Message string
}

func (e *ExecError) Error() string { return e.Message }

// ErrUnmapped is wrapped by the error of Run if a user or group of the Spec has no id in
// the user namespace.
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
