package inplace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// envInside tells a process started by Enter from others.
const envInside = "_SHALE_INPLACE"

// Enter lets the process run from a sealed copy of its program in memory, so
// that a step can change no file that it needs, and closes what other processes
// of root may look at: its memory, variables and descriptors (PR_SET_DUMPABLE
// in prctl(2)). Called for the first time it does not return unless it fails:
// the process executes itself with the same arguments. Nothing may have been
// read from standard input before.
func Enter() error {
	if Inside() {
		if err := os.Unsetenv(envInside); err != nil {
			return fmt.Errorf("build in place: %w", err)
		}
		return settle()
	}
	fd, err := memoryCopy("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("build in place: copy the program to memory: %w", err)
	}
	env := append(os.Environ(), envInside+"="+strconv.Itoa(os.Getpid()))
	err = syscall.Exec("/proc/self/fd/"+strconv.Itoa(fd), os.Args, env)
	return fmt.Errorf("build in place: execute the copy in memory: %w", err)
}

func settle() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("build in place: prctl: %w", err)
	}
	unix.Umask(0o022)
	// containers/storage decides by these whether to keep its marks in user.*
	// attributes and to do without what needs privileges.
	return errors.Join(
		os.Setenv("_CONTAINERS_USERNS_CONFIGURED", "done"),
		os.Setenv("_CONTAINERS_ROOTLESS_UID", "0"),
		os.Setenv("_CONTAINERS_ROOTLESS_GID", "0"))
}

// memoryCopy returns a descriptor of a sealed copy of a file (memfd_create(2),
// Linux 3.17).
func memoryCopy(path string) (int, error) {
	in, err := os.Open(path)
	if err != nil {
		return -1, err
	}
	defer in.Close()
	// The name is what ps shows.
	fd, err := unix.MemfdCreate("shale", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	out := os.NewFile(uintptr(fd), "shale")
	if _, err := io.Copy(out, in); err != nil {
		return -1, errors.Join(err, out.Close())
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if _, err := unix.FcntlInt(out.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return -1, errors.Join(os.NewSyscallError("fcntl", err), out.Close())
	}
	kept, err := unix.FcntlInt(out.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	return kept, errors.Join(err, out.Close())
}

// machinePIDs is the process ids' namespace of the machine itself, whose number
// the kernel fixes (PROC_PID_INIT_INO in linux/proc_ns.h).
const machinePIDs = "pid:[4026531836]"

// ErrMachine tells that the root directory may be that of a machine.
var ErrMachine = errors.New("building in place moves away what is in the root directory: that is for containers only, of which root lacks CAP_SYS_ADMIN and which have process ids of their own")

// Allowed tells whether the root directory is that of a container, which nobody
// but the build needs. What a machine's root may do is not mistaken for it.
func Allowed() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	if (data[0].Effective|data[0].Permitted)>>unix.CAP_SYS_ADMIN&1 != 0 {
		return ErrMachine
	}
	pids, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("build in place: %w", err)
	}
	if pids == machinePIDs {
		return ErrMachine
	}
	return nil
}

// Inside tells whether Enter was called and started the program again.
func Inside() bool { return os.Getenv(envInside) == strconv.Itoa(os.Getpid()) }
