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

// envInside is set in the environment of the process that Enter executes. Its value is
// the process id.
const envInside = "_SHALE_INPLACE"

// Enter protects the build process from its own steps, which run as root in the same
// container. It executes the program again from a sealed copy in memory, so that no step
// can change a file of the program. It also sets PR_SET_DUMPABLE to 0 (prctl(2)). Then
// other processes of root cannot read the memory, environment and file descriptors of
// this process.
//
// The first call replaces the process by the copy, with the same arguments. It returns
// only if it fails. The second call, in the copy, returns nil on success. It also sets
// the umask and the variables by which containers/storage recognizes a user namespace.
// Before the first call the process must not read from standard input, because buffered
// data would be lost.
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
	// These variables make containers/storage use user.* xattrs for its own marks, and
	// skip operations that need privileges.
	return errors.Join(
		umask.Set(),
		os.Setenv("_CONTAINERS_USERNS_CONFIGURED", "done"),
		os.Setenv("_CONTAINERS_ROOTLESS_UID", "0"),
		os.Setenv("_CONTAINERS_ROOTLESS_GID", "0"))
}

// privateCopy returns a file descriptor of a copy of the program at path. The copy has no
// name, and only this process can open it. It is a sealed file in memory. If sysctl
// vm.memfd_noexec is 2 (Linux 6.3), it is a deleted file on disk.
func privateCopy(path string) (int, error) {
	in, err := os.Open(path)
	if err != nil {
		return -1, err
	}
	defer in.Close()
	// ps shows this name. If sysctl vm.memfd_noexec is 1, a file without MFD_EXEC cannot
	// be executed. The Linux kernel before 6.3 does not know MFD_EXEC and returns EINVAL.
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

// fileCopy is privateCopy on a disk. It uses the directory for temporary files. If that
// fails, for example because of a noexec mount, it uses the root directory. The kernel
// refuses writes to the file while it is executed (ETXTBSY). Other processes cannot open
// it through /proc/PID/exe, because this process is not dumpable.
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
	defer func() { _ = out.Close() }() // read-only access is opened below
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
	// The kernel refuses to execute a file that is open for writing.
	return unix.Open("/proc/self/fd/"+strconv.Itoa(int(out.Fd())), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// machinePIDs is the initial pid namespace, which is the one of the machine. The kernel
// fixes its number (PROC_PID_INIT_INO in linux/proc_ns.h).
const machinePIDs = "pid:[4026531836]"

// ErrMachine is returned by Allowed if the root directory may be that of a machine.
var ErrMachine = errors.New("building in place moves away the content of the root directory: it is allowed only in containers, whose root lacks CAP_SYS_ADMIN and which have their own process ids")

// Allowed returns nil if the root directory is that of a container, so that a build may
// move its files away. It returns ErrMachine if the process has CAP_SYS_ADMIN or is in
// the initial pid namespace. In both cases the process may be root of a machine. Any
// other error means that Allowed could not read the capabilities or the namespace.
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

// Inside reports whether Enter has executed this process and was not called in it yet.
func Inside() bool { return os.Getenv(envInside) == strconv.Itoa(os.Getpid()) }
