package inplace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/umask"
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
	fd, err := privateCopy("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("build in place: copy the program: %w", err)
	}
	env := append(os.Environ(), envInside+"="+strconv.Itoa(os.Getpid()))
	err = syscall.Exec("/proc/self/fd/"+strconv.Itoa(fd), os.Args, env)
	return fmt.Errorf("build in place: execute the copy: %w", err)
}

func settle() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("build in place: prctl: %w", err)
	}
	// containers/storage decides by these whether to keep its marks in user.*
	// attributes and to do without what needs privileges.
	return errors.Join(
		umask.Set(),
		os.Setenv("_CONTAINERS_USERNS_CONFIGURED", "done"),
		os.Setenv("_CONTAINERS_ROOTLESS_UID", "0"),
		os.Setenv("_CONTAINERS_ROOTLESS_GID", "0"))
}

// privateCopy returns a descriptor of a copy of a program that has no name and that
// only this process can reach: in memory and sealed, or, where
// sysctl vm.memfd_noexec is 2 (Linux 6.3), in a file.
func privateCopy(path string) (int, error) {
	in, err := os.Open(path)
	if err != nil {
		return -1, err
	}
	defer in.Close()
	// The name is what ps shows. Without MFD_EXEC, which Linux before 6.3 does not
	// know, sysctl vm.memfd_noexec at 1 makes a file that cannot be executed.
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("shale", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("shale", flags)
	}
	if errors.Is(err, unix.EACCES) {
		return fileCopy(in)
	}
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

// fileCopy is privateCopy in the directory for temporary files or in the root
// directory: one of them can hold programs. The kernel lets nothing write to the
// file while it is executed (ETXTBSY), and nothing opens it by /proc/PID/exe, as the
// process is not dumpable.
func fileCopy(in *os.File) (int, error) {
	var errs []error
	for _, dir := range []string{os.TempDir(), "/"} {
		fd, err := copyInto(dir, in)
		if err == nil {
			return fd, nil
		}
		errs = append(errs, err)
	}
	return -1, errors.Join(errs...)
}

func copyInto(dir string, in *os.File) (int, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return -1, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if fs.Flags&unix.ST_NOEXEC != 0 {
		return -1, &os.PathError{Op: "execute files in", Path: dir, Err: unix.EACCES}
	}
	out, err := os.CreateTemp(dir, ".shale-")
	if err != nil {
		return -1, err
	}
	defer func() { _ = out.Close() }() // written, or given up
	if err := os.Remove(out.Name()); err != nil {
		return -1, err
	}
	if err := out.Chmod(0o500); err != nil {
		return -1, err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return -1, err
	}
	if _, err := io.Copy(out, in); err != nil {
		return -1, err
	}
	// A file that is open for writing cannot be executed.
	return unix.Open("/proc/self/fd/"+strconv.Itoa(int(out.Fd())), unix.O_RDONLY|unix.O_CLOEXEC, 0)
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
