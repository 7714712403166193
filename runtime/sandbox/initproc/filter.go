package initproc

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FilterMagic begins the message with a filter that a builder sends to a container
// whose calls it supervises. The machine code of a seccomp filter follows.
const FilterMagic = "shale seccomp filter 1\n"

// filterFD is the first descriptor after the standard ones.
const filterFD = 3

const (
	seccompSetModeFilter  = 1
	filterAllThreads      = 1<<0 | 1<<4 // TSYNC, TSYNC_ESRCH
	filterNewListener     = 1 << 3
	filterWaitKillable    = 1 << 5
	instructionSize       = 8
	maxFilterInstructions = 4096 // the kernel's limit, BPF_MAXINSNS
)

// installFilter puts the process, and what it executes, under the filter
// that waits at filterFD, and sends the listener back. Libcontainer's own filter
// comes on top of it later; of what both say the stricter counts, and an error is
// stricter than a notification, so nothing that the profile refuses is answered.
//
// All threads must be under it: glibc changes the user on each of them and aborts
// when one gets another answer. Installing it needs CAP_SYS_ADMIN in the user namespace, which the process
// still has, or no-new-privileges.
func installFilter() {
	message := make([]byte, len(FilterMagic)+instructionSize*maxFilterInstructions)
	// Whatever else is at that number stays as it is.
	n, _, err := unix.Recvfrom(filterFD, message, unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil || !bytes.HasPrefix(message[:n], []byte(FilterMagic)) {
		return
	}
	unix.CloseOnExec(filterFD)
	if n, _, err = unix.Recvfrom(filterFD, message, 0); err != nil {
		return
	}
	listener, err := filter(message[len(FilterMagic):n])
	if err != nil {
		_ = unix.Sendmsg(filterFD, []byte(err.Error()), nil, nil, 0)
		// Without the filter owners would be wrong.
		unix.Exit(255)
	}
	err = unix.Sendmsg(filterFD, []byte{0}, unix.UnixRights(listener), nil, 0)
	if err = errors.Join(err, unix.Close(listener)); err != nil {
		unix.Exit(255)
	}
}

// filter installs a program and returns its listener.
func filter(code []byte) (int, error) {
	if len(code) == 0 || len(code)%instructionSize != 0 {
		return -1, fmt.Errorf("filter of %d bytes", len(code))
	}
	program := unix.SockFprog{
		Len:    uint16(len(code) / instructionSize),
		Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(code))), //nolint:gosec // the same layout
	}
	var errno unix.Errno
	// Signals of the caller would make it repeat a call that was carried out.
	// Linux 5.19; older ones know no such flag.
	const needed = filterNewListener | filterAllThreads
	for _, flags := range []uintptr{needed | filterWaitKillable, needed} {
		var fd uintptr
		fd, _, errno = unix.RawSyscall(unix.SYS_SECCOMP, seccompSetModeFilter, flags, uintptr(unsafe.Pointer(&program))) //nolint:gosec // the call reads it
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EINVAL {
			break
		}
	}
	return -1, errno
}
