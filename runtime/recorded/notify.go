package recorded

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of a seccomp listener, from linux/seccomp.h.
const (
	ioctlRecv     = 0xc0502100
	ioctlSend     = 0xc0182101
	ioctlIDValid  = 0x40082102
	ioctlAddFD    = 0x40182103
	ioctlSetFlags = 0x40082104

	syncWakeUp   = 1
	flagContinue = 1
)

// notification is struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	error int32
	flags uint32
}

// addFD is struct seccomp_notif_addfd.
type addFD struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// listener is the file descriptor of a seccomp listener.
type listener int

func (l listener) ioctl(request uintptr, arg unsafe.Pointer) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l), request, uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// fast makes the kernel switch to this thread and back without waking another processor.
// It reports whether the kernel supports this (Linux 6.6).
func (l listener) fast() bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l), ioctlSetFlags, syncWakeUp)
	return errno == 0
}

func (l listener) receive(n *notification) error {
	*n = notification{}
	_, err := l.ioctl(ioctlRecv, unsafe.Pointer(n)) // #nosec G103 -- the kernel's structure
	return err
}

func (l listener) send(r *response) error {
	// The call never blocks, so it does not need Go's scheduler.
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(l), ioctlSend, uintptr(unsafe.Pointer(r))) // #nosec G103 -- the kernel's structure
	if errno != 0 {
		return errno
	}
	return nil
}

// valid reports whether the caller still waits for the answer. If so, its thread id was
// not reused before: everything read or opened by that id belongs to the caller.
func (l listener) valid(id uint64) bool {
	_, err := l.ioctl(ioctlIDValid, unsafe.Pointer(&id)) // #nosec G103 -- a number
	return err == nil
}

// add copies the file descriptor fd into the caller and returns its number there. The
// answer must be sent separately. With SECCOMP_ADDFD_FLAG_SEND, a signal to this thread
// loses the descriptor, and the caller gets the number 0.
func (l listener) add(id uint64, fd int, cloexec bool) (int, error) {
	a := addFD{id: id, srcfd: uint32(fd)}
	if cloexec {
		a.newfdFlags = unix.O_CLOEXEC
	}
	for {
		n, err := l.ioctl(ioctlAddFD, unsafe.Pointer(&a)) // #nosec G103 -- the kernel's structure
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// answer is the result of a handler: a value, an error, or goOn. With goOn the kernel
// carries out the call unchanged.
type answer struct {
	val   int64
	errno unix.Errno
	cont  bool
}

var goOn = answer{cont: true}

func value(v int) answer { return answer{val: int64(v)} }

func fail(err error) answer {
	if errno, ok := errors.AsType[unix.Errno](err); ok && errno != 0 {
		return answer{errno: errno}
	}
	if err == nil {
		return answer{}
	}
	return answer{errno: unix.EIO}
}

func (a answer) to(id uint64) response {
	r := response{id: id, val: a.val}
	switch {
	case a.cont:
		r.val, r.flags = 0, flagContinue
	case a.errno != 0:
		r.val, r.error = 0, -int32(a.errno)
	}
	return r
}
