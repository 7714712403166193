package recorded

import (
	"maps"

	"golang.org/x/sys/unix"
)

// call says how a system call is answered.
type call struct {
	handle func(*Supervisor, *notification) answer
	// simple calls are notified of whatever their arguments are.
	simple bool
	// stat calls only show owners, make calls give a new file one, keep calls
	// make one file of another.
	stat, make, keep bool
}

// in tells whether a call is answered. kept says that there are files to keep the
// owners of.
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

// newXattrCalls came with Linux 6.13, in asm-generic for every architecture:
// setxattrat, getxattrat, listxattrat, removexattrat. Programs do without.
var newXattrCalls = []int{463, 464, 465, 466}

// fchmodat2 came with Linux 6.6, with one number everywhere.
const fchmodat2 = 452

// calls are what is answered, by number.
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
