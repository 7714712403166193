package probe

import (
	"context"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/scope"
	"github.com/shale-build/shale/runtime/userns"
)

// notify probes seccomp notification. It asks the kernel for the sizes of the
// notification structures, which is an error before Linux 5.0 (seccomp(2)).
func notify() Result {
	var sizes [3]uint16
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes))) // #nosec G103
	if errno != 0 {
		return Result{Notify, Degraded, errno.Error(), "needs Linux 5.0 and a profile that allows seccomp(2)"}
	}
	return Result{Name: Notify, Status: OK}
}

func tun() Result {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Result{Tun, Degraded, "no private network: " + err.Error(), "modprobe tun; chmod 0666 /dev/net/tun"}
	}
	_ = unix.Close(fd)
	return Result{Name: Tun, Status: OK}
}

func cgroup(ctx context.Context) Result {
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil {
		return Result{Cgroup, Degraded, err.Error(), ""}
	}
	if st.Type != unix.CGROUP2_SUPER_MAGIC {
		return Result{Cgroup, Degraded, "version 1: no limits for users", "boot with systemd.unified_cgroup_hierarchy=1"}
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return Result{Cgroup, Degraded, err.Error(), ""}
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(b)), "0::")
	if unix.Access("/sys/fs/cgroup"+path, unix.W_OK) == nil {
		return Result{Name: Cgroup, Status: OK, Detail: "version 2, delegated"}
	}
	if err := scope.Offered(ctx, os.Getuid()); err != nil {
		return Result{Cgroup, Degraded, "version 2, not delegated, so no limits for steps: " + err.Error(), ""}
	}
	return Result{Name: Cgroup, Status: OK, Detail: "version 2, delegated by the user's systemd when steps have limits"}
}

// appArmor returns the result for AppArmor. why is the result of userns.AppArmorRefuses
// for the error of entering a user namespace.
func appArmor(why string) Result {
	if why == "" {
		return Result{Name: AppArmor, Status: OK, Detail: "does not forbid user namespaces"}
	}
	return Result{AppArmor, Missing, why, userns.AppArmorFix()}
}

func noNewPrivs() Result {
	v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil || v == 0 {
		return Result{Name: NoNewPrivs, Status: OK, Detail: "not set"}
	}
	return Result{NoNewPrivs, Degraded, "set: newuidmap cannot work", "start without no-new-privileges (allowPrivilegeEscalation: true)"}
}

// container looks for the files that container engines create in a container's root
// directory.
func container() Result {
	for _, f := range []string{"/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io"} {
		if _, err := os.Stat(f); err == nil {
			return Result{Name: Container, Status: Degraded, Detail: "inside one (" + f + ")"}
		}
	}
	if os.Getenv("container") != "" {
		return Result{Name: Container, Status: Degraded, Detail: "inside one (" + os.Getenv("container") + ")"}
	}
	return Result{Name: Container, Status: OK, Detail: "not inside one"}
}
