package initproc

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FilterMagic begins the message with which a builder sends a seccomp filter to a
// container to supervise its system calls. The machine code of the filter follows it.
const FilterMagic = "shale seccomp filter 1\n"

// filterFD is the first file descriptor after the standard streams.
const filterFD = 3

const (
	seccompSetModeFilter  = 1
	filterAllThreads      = 1<<0 | 1<<4 // TSYNC, TSYNC_ESRCH
	filterNewListener     = 1 << 3
	filterWaitKillable    = 1 << 5
	instructionSize       = 8
	maxFilterInstructions = 4096 // the kernel's limit, BPF_MAXINSNS
)

// installFilter installs the filter that waits at filterFD, for this process and the
// programs that it executes. It sends the filter's listener back. libcontainer installs
// its own filter later. If both match, the kernel applies the stricter result. An error
// is stricter than a notification, so the listener never sees a call that libcontainer's
// filter refuses.
//
// All threads must have the filter: glibc changes the user on each thread and aborts if
// the results differ. To install a filter, the process needs CAP_SYS_ADMIN in the user
// namespace, which it still has, or no-new-privileges.
func installFilter() {
	message := make([]byte, len(FilterMagic)+instructionSize*maxFilterInstructions)
	// Peek first: if the descriptor has another use, it must not be changed.
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
		// Without the filter, owners would be wrong.
		unix.Exit(255)
	}
	err = unix.Sendmsg(filterFD, []byte{0}, unix.UnixRights(listener), nil, 0)
	if err = errors.Join(err, unix.Close(listener)); err != nil {
		unix.Exit(255)
	}
}

// filter installs a filter program and returns its listener.
func filter(code []byte) (int, error) {
	if len(code) == 0 || len(code)%instructionSize != 0 {
		return -1, fmt.Errorf("filter of %d bytes", len(code))
	}
	program := unix.SockFprog{
		Len:    uint16(len(code) / instructionSize),
		Filter: (*unix.SockFilter)(unsafe.Pointer(unsafe.SliceData(code))), //nolint:gosec // the same layout
	}
	var errno unix.Errno
	// Without filterWaitKillable (Linux 5.19), a signal of the caller makes it repeat a
	// call that was already carried out. Older kernels return EINVAL for the flag.
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
