package recorded

import (
	"maps"

	"golang.org/x/sys/unix"
)

// call describes how the supervisor answers a system call.
type call struct {
	handle func(*Supervisor, *notification) answer
	// simple is set if the filter passes on the call with any arguments. Otherwise the
	// filter checks the arguments.
	simple bool
	// stat calls only show owners. make calls create a file, which needs an owner. keep
	// calls rename, link or change a file, which must keep its record.
	stat, make, keep bool
}

// in reports whether the supervisor answers the call in tier t. kept reports whether
// there are files in the Table when the step starts.
func (c call) in(t Tier, kept bool) bool {
	switch {
	case c.stat:
		return t == TierFull
	case c.keep:
		return kept && t != TierSquash
	case c.make:
		return t != TierSquash
	}
	return true
}

// newXattrCalls are the numbers of setxattrat, getxattrat, listxattrat and removexattrat.
// Linux 6.13 added them with the same numbers for every architecture (asm-generic). The
// filter refuses them, and programs use the older calls instead.
var newXattrCalls = []int{463, 464, 465, 466}

// fchmodat2 was added in Linux 6.6, with the same number for every architecture.
const fchmodat2 = 452

// calls maps numbers to the system calls that the supervisor answers.
var calls map[int]call

func init() {
	calls = map[int]call{
		unix.SYS_FCHOWN:   {handle: fchown, simple: true},
		unix.SYS_FCHOWNAT: {handle: fchownat, simple: true},

		unix.SYS_SETUID:    {handle: setuid, simple: true},
		unix.SYS_SETGID:    {handle: setgid, simple: true},
		unix.SYS_SETREUID:  {handle: setreuid, simple: true},
		unix.SYS_SETREGID:  {handle: setregid, simple: true},
		unix.SYS_SETRESUID: {handle: setresuid, simple: true},
		unix.SYS_SETRESGID: {handle: setresgid, simple: true},
		unix.SYS_SETFSUID:  {handle: setfsuid, simple: true},
		unix.SYS_SETFSGID:  {handle: setfsgid, simple: true},
		unix.SYS_SETGROUPS: {handle: setgroups, simple: true},

		unix.SYS_GETUID:    {handle: getID(func(c creds) uint32 { return c.uid.r }), simple: true},
		unix.SYS_GETEUID:   {handle: getID(func(c creds) uint32 { return c.uid.e }), simple: true},
		unix.SYS_GETGID:    {handle: getID(func(c creds) uint32 { return c.gid.r }), simple: true},
		unix.SYS_GETEGID:   {handle: getID(func(c creds) uint32 { return c.gid.e }), simple: true},
		unix.SYS_GETRESUID: {handle: getresuid, simple: true},
		unix.SYS_GETRESGID: {handle: getresgid, simple: true},
		unix.SYS_GETGROUPS: {handle: getgroups, simple: true},

		unix.SYS_PRCTL:      {handle: prctl},
		unix.SYS_GETSOCKOPT: {handle: getsockopt},
		unix.SYS_EXECVE:     {handle: execve, simple: true},
		unix.SYS_EXECVEAT:   {handle: execveat, simple: true},
		unix.SYS_CHROOT:     {handle: moved, simple: true},
		unix.SYS_PIVOT_ROOT: {handle: moved, simple: true},
		unix.SYS_SETNS:      {handle: moved, simple: true},

		unix.SYS_OPENAT:    {handle: openat, make: true},
		unix.SYS_OPENAT2:   {handle: openat2, simple: true, make: true},
		unix.SYS_MKDIRAT:   {handle: mkdirat, simple: true, make: true},
		unix.SYS_SYMLINKAT: {handle: symlinkat, simple: true, make: true},
		unix.SYS_MKNODAT:   {handle: mknodat, simple: true},

		unix.SYS_RENAMEAT2: {handle: keepRenamed, simple: true, keep: true},
		unix.SYS_LINKAT:    {handle: keepLinked, simple: true, keep: true},
		unix.SYS_UTIMENSAT: {handle: keepFlags, simple: true, keep: true},
		unix.SYS_FCHMOD:    {handle: keepOpen, simple: true, keep: true},
		unix.SYS_FCHMODAT:  {handle: keepTarget, simple: true, keep: true},
		fchmodat2:          {handle: keepFlags, simple: true, keep: true},

		unix.SYS_FSTAT: {handle: fstat, simple: true, stat: true},
		unix.SYS_STATX: {handle: statx, simple: true, stat: true},

		unix.SYS_LISTXATTR:    {handle: listxattr(true), simple: true},
		unix.SYS_LLISTXATTR:   {handle: listxattr(false), simple: true},
		unix.SYS_FLISTXATTR:   {handle: flistxattr, simple: true},
		unix.SYS_SETXATTR:     {handle: setxattr, simple: true},
		unix.SYS_LSETXATTR:    {handle: setxattr, simple: true},
		unix.SYS_FSETXATTR:    {handle: setxattr, simple: true},
		unix.SYS_REMOVEXATTR:  {handle: removexattr, simple: true},
		unix.SYS_LREMOVEXATTR: {handle: removexattr, simple: true},
		unix.SYS_FREMOVEXATTR: {handle: removexattr, simple: true},
	}
	maps.Copy(calls, ownCalls)
}
