package recorded

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_AARCH64
	// foreignABI is 0: no other ABI has the same architecture in seccomp data.
	foreignABI = 0
)

// openCalls are the calls that may create a file. The value is the index of the argument
// with their flags.
var openCalls = map[int]int{unix.SYS_OPENAT: 2}

// ownCalls are the calls that not every architecture has.
var ownCalls = map[int]call{
	unix.SYS_RENAMEAT: {handle: keepAt, simple: true, keep: true},
	unix.SYS_FSTATAT:  {handle: newfstatat, simple: true, stat: true},
}

func newfstatat(s *Supervisor, n *notification) answer {
	return s.stat(n, fdArg(n.args[0]), n.args[1], int(int32(n.args[3])), n.args[2]) //nolint:gosec // an int in C
}
