//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// without REFUSAL[,REFUSAL…] CMD… runs a command under a seccomp filter that refuses
// system calls or some of their arguments. The command then sees a kernel that lacks
// them:
//
//	CALL=ERRNO            the call
//	CALL:ARG==VALUE=ERRNO the call with this argument (counted from 0)
//	CALL:ARG&MASK=ERRNO   the call with one of these bits in the argument
//
// A kernel without the call returns ENOSYS. A filter that does not know the call returns
// EPERM. A kernel without the flag returns EINVAL. OK skips the call and returns success.
// With CAP_SYS_ADMIN, set-id programs work as usual. Without it, the filter requires
// no_new_privs, under which newuidmap gets no privileges.
func without(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: without REFUSAL[,REFUSAL…] CMD…")
	}
	var code []unix.SockFilter
	for text := range strings.SplitSeq(args[0], ",") {
		rule, err := refusal(text)
		if err != nil {
			return err
		}
		code = append(code, rule...)
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	// The filter applies only to this thread, which then executes the command.
	runtime.LockOSThread()
	code = append(code, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	install := func() error {
		return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	}
	err = install()
	if errors.Is(err, unix.EACCES) { // without CAP_SYS_ADMIN
		err = errors.Join(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), install())
	}
	if err != nil {
		return fmt.Errorf("install filter: %w", err)
	}
	return syscall.Exec(path, args[1:], os.Environ())
}

var refusalForm = regexp.MustCompile(`^([a-z0-9_]+)(?::([0-5])(==|&)(0x[0-9a-f]+|[0-9]+))?=([A-Z0-9]+)$`)

// refusal assembles the filter of one rule. If the rule does not match, the program
// continues with the next instruction.
func refusal(text string) ([]unix.SockFilter, error) {
	m := refusalForm.FindStringSubmatch(text)
	if m == nil {
		return nil, fmt.Errorf("%q: want CALL[:ARG==VALUE|:ARG&MASK]=ERRNO", text)
	}
	number, ok := refusable[m[1]]
	if !ok {
		return nil, fmt.Errorf("%q: no such call is known here", text)
	}
	errno, ok := map[string]unix.Errno{
		"ENOSYS": unix.ENOSYS, "EPERM": unix.EPERM, "EINVAL": unix.EINVAL, "EACCES": unix.EACCES, "EOPNOTSUPP": unix.EOPNOTSUPP,
		"EXDEV": unix.EXDEV, "ENODEV": unix.ENODEV, "E2BIG": unix.E2BIG, "ENOSPC": unix.ENOSPC, "OK": 0,
	}[m[5]]
	if !ok {
		return nil, fmt.Errorf("%q: no such error is known here", text)
	}
	refuse := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)}
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	jump := func(how uint16, k uint32, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, K: k, Jf: no}
	}
	if m[2] == "" {
		return []unix.SockFilter{load(0), jump(unix.BPF_JEQ, uint32(number), 1), refuse}, nil
	}
	arg, err := strconv.ParseUint(m[2], 10, 8)
	if err != nil {
		return nil, err
	}
	value, err := strconv.ParseUint(m[4], 0, 32)
	if err != nil {
		return nil, err
	}
	how := uint16(unix.BPF_JEQ)
	if m[3] == "&" {
		how = unix.BPF_JSET
	}
	const args = 16 // offset in struct seccomp_data; little-endian
	return []unix.SockFilter{load(0), jump(unix.BPF_JEQ, uint32(number), 3), load(args + 8*uint32(arg)), jump(how, uint32(value), 1), refuse}, nil
}

// refusable are system calls that kernels in use lack or that seccomp filters in use
// refuse.
var refusable = map[string]int{
	"clone3": unix.SYS_CLONE3, "close_range": unix.SYS_CLOSE_RANGE, "copy_file_range": unix.SYS_COPY_FILE_RANGE,
	"execveat": unix.SYS_EXECVEAT, "faccessat2": unix.SYS_FACCESSAT2, "fchmodat2": 452, "fsconfig": unix.SYS_FSCONFIG,
	"linkat":  unix.SYS_LINKAT,
	"fsmount": unix.SYS_FSMOUNT, "fsopen": unix.SYS_FSOPEN, "getrandom": unix.SYS_GETRANDOM, "ioctl": unix.SYS_IOCTL,
	"listmount": 458, "memfd_create": unix.SYS_MEMFD_CREATE, "mount": unix.SYS_MOUNT, "mount_setattr": unix.SYS_MOUNT_SETATTR,
	"move_mount": unix.SYS_MOVE_MOUNT, "name_to_handle_at": unix.SYS_NAME_TO_HANDLE_AT, "open_tree": unix.SYS_OPEN_TREE,
	"openat": unix.SYS_OPENAT, "openat2": unix.SYS_OPENAT2, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "pidfd_open": unix.SYS_PIDFD_OPEN,
	"pidfd_send_signal": unix.SYS_PIDFD_SEND_SIGNAL, "prctl": unix.SYS_PRCTL, "process_vm_readv": unix.SYS_PROCESS_VM_READV,
	"quotactl": unix.SYS_QUOTACTL, "quotactl_fd": unix.SYS_QUOTACTL_FD, "renameat2": unix.SYS_RENAMEAT2, "rseq": unix.SYS_RSEQ,
	"seccomp": unix.SYS_SECCOMP, "sendfile": unix.SYS_SENDFILE, "splice": unix.SYS_SPLICE, "statmount": 457, "statx": unix.SYS_STATX,
	"syncfs": unix.SYS_SYNCFS, "unshare": unix.SYS_UNSHARE, "waitid": unix.SYS_WAITID,
}
