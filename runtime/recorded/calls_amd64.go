package recorded

import "golang.org/x/sys/unix"

const (
	auditArch = unix.AUDIT_ARCH_X86_64
	// foreignABI is the first number of the x32 ABI. It has the same architecture in
	// seccomp data, so the filter refuses it by number.
	foreignABI = 0x40000000
)

// openCalls are the calls that may create a file. The value is the index of the argument
// with their flags.
var openCalls = map[int]int{unix.SYS_OPEN: 1, unix.SYS_OPENAT: 2}

// ownCalls are the calls that not every architecture has.
var ownCalls = map[int]call{
	unix.SYS_CHOWN:      {handle: chown, simple: true},
	unix.SYS_LCHOWN:     {handle: lchown, simple: true},
	unix.SYS_OPEN:       {handle: open, make: true},
	unix.SYS_CREAT:      {handle: creat, simple: true, make: true},
	unix.SYS_MKDIR:      {handle: mkdir, simple: true, make: true},
	unix.SYS_SYMLINK:    {handle: symlink, simple: true, make: true},
	unix.SYS_MKNOD:      {handle: mknod, simple: true},
	unix.SYS_RENAME:     {handle: keepHere, simple: true, keep: true},
	unix.SYS_RENAMEAT:   {handle: keepAt, simple: true, keep: true},
	unix.SYS_LINK:       {handle: keepHere, simple: true, keep: true},
	unix.SYS_CHMOD:      {handle: keepTargetHere, simple: true, keep: true},
	unix.SYS_UTIME:      {handle: keepTargetHere, simple: true, keep: true},
	unix.SYS_UTIMES:     {handle: keepTargetHere, simple: true, keep: true},
	unix.SYS_FUTIMESAT:  {handle: keepTarget, simple: true, keep: true},
	unix.SYS_STAT:       {handle: stat, simple: true, stat: true},
	unix.SYS_LSTAT:      {handle: lstat, simple: true, stat: true},
	unix.SYS_NEWFSTATAT: {handle: newfstatat, simple: true, stat: true},
}

// These calls have no directory argument. Relative paths start at the working directory.

func chown(s *Supervisor, n *notification) answer {
	return s.chown(n, unix.AT_FDCWD, n.args[0], 0, n.args[1], n.args[2])
}

func lchown(s *Supervisor, n *notification) answer {
	return s.chown(n, unix.AT_FDCWD, n.args[0], unix.AT_SYMLINK_NOFOLLOW, n.args[1], n.args[2])
}

func open(s *Supervisor, n *notification) answer {
	return s.open(n, unix.AT_FDCWD, n.args[0], n.args[1], n.args[2])
}

func creat(s *Supervisor, n *notification) answer {
	return s.open(n, unix.AT_FDCWD, n.args[0], unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, n.args[1])
}

func mkdir(s *Supervisor, n *notification) answer {
	return s.mkdir(n, unix.AT_FDCWD, n.args[0], n.args[1])
}

func symlink(s *Supervisor, n *notification) answer {
	return s.symlink(n, n.args[0], unix.AT_FDCWD, n.args[1])
}

func mknod(s *Supervisor, n *notification) answer {
	return s.mknod(n, unix.AT_FDCWD, n.args[0], n.args[1], n.args[2])
}

func keepHere(s *Supervisor, n *notification) answer {
	return s.keep(n, unix.AT_FDCWD, n.args[0], unix.AT_SYMLINK_NOFOLLOW)
}

func keepTargetHere(s *Supervisor, n *notification) answer {
	if n.args[0] == 0 {
		return goOn // EFAULT from the kernel
	}
	return s.keep(n, unix.AT_FDCWD, n.args[0], 0)
}

func stat(s *Supervisor, n *notification) answer {
	return s.stat(n, unix.AT_FDCWD, n.args[0], 0, n.args[1])
}

func lstat(s *Supervisor, n *notification) answer {
	return s.stat(n, unix.AT_FDCWD, n.args[0], unix.AT_SYMLINK_NOFOLLOW, n.args[1])
}

func newfstatat(s *Supervisor, n *notification) answer {
	return s.stat(n, fdArg(n.args[0]), n.args[1], int(int32(n.args[3])), n.args[2])
}
