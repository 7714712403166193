package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const fixSubIDs = "give the user ranges with: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER"

// WaysOut are what to do in a container that allows no namespaces.
const WaysOut = "in a container build as root, which works in place (runAsUser: 0, docker's --user 0), " +
	"or let it make namespaces (seccompProfile: {type: Unconfined}, docker's --security-opt seccomp=unconfined)"

// AppArmorFix is the command that installs a profile with which this program
// may make user namespaces.
func AppArmorFix() string {
	self, err := os.Executable()
	if err != nil {
		self = "/usr/local/bin/shale"
	}
	return fmt.Sprintf(`run as root: printf 'abi <abi/4.0>,\ninclude <tunables/global>\nprofile shale %s flags=(unconfined) {\n  userns,\n}\n' `+
		`>/etc/apparmor.d/shale && apparmor_parser -r /etc/apparmor.d/shale`, self)
}

// explainUnshare finds the switch that forbids user namespaces.
func explainUnshare(err error) string {
	switch {
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor restricts user namespaces; " + AppArmorFix()
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		return "enable them with: sysctl kernel.unprivileged_userns_clone=1"
	case sysctl("user/max_user_namespaces") == "0":
		return "enable them with: sysctl user.max_user_namespaces=15000"
	case errors.Is(err, unix.ENOSPC):
		return "the limit user.max_user_namespaces is reached"
	case errors.Is(err, unix.EPERM):
		return "a seccomp profile, a chroot or a missing capability forbids it; " + WaysOut
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "the kernel was built without user namespaces"
	}
	return ""
}

func explainMount(err error) string {
	if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
		return explainUnshare(err)
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "a security module or seccomp profile forbids mount"
	}
	return ""
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name) // #nosec G304 -- names are constants
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
