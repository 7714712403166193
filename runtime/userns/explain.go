package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

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

// AppArmorRefuses returns why err, met on the way into a user namespace, is AppArmor's
// answer, "" if it is not or that is not known. Since Linux 6.7 a profile may forbid
// user namespaces: the kernel answers EACCES, where seccomp profiles and switches
// have EPERM. Ubuntu's kernels, from 23.10 on, let programs without a profile have
// one without capabilities; there it is the first mount that is refused.
func AppArmorRefuses(err error) string {
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return ""
	}
	label := appArmorLabel()
	// What Ubuntu's kernels call a program without a profile in its namespace.
	without := !strings.HasSuffix(label, ")") || strings.HasPrefix(label, "unprivileged_userns ")
	switch {
	case without && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor restricts user namespaces to programs with a profile (kernel.apparmor_restrict_unprivileged_userns is set)"
	case errors.Is(err, unix.EACCES) && strings.HasSuffix(label, ")"):
		return fmt.Sprintf("the AppArmor profile %q forbids user namespaces", label)
	}
	return ""
}

// appArmorLabel is this process's, "" without AppArmor: "unconfined", or a profile
// with its mode in parentheses.
func appArmorLabel() string {
	for _, file := range []string{"apparmor/current", "current"} {
		b, err := os.ReadFile("/proc/thread-self/attr/" + file) // #nosec G304 -- names are constants
		label := strings.TrimRight(string(b), "\x00\n")
		// Those of SELinux and Smack are in the second one too.
		if err == nil && (label == "unconfined" || strings.HasSuffix(label, ")")) {
			return label
		}
	}
	return ""
}

// explainUnshare finds what forbids user namespaces.
func explainUnshare(err error) string {
	if why := AppArmorRefuses(err); why != "" {
		return why + "; " + AppArmorFix()
	}
	switch {
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		return "enable them with: sysctl kernel.unprivileged_userns_clone=1"
	case sysctl("user/max_user_namespaces") == "0":
		return "enable them with: sysctl user.max_user_namespaces=15000"
	case errors.Is(err, unix.ENOSPC):
		return "the limit user.max_user_namespaces is reached"
	case errors.Is(err, unix.EACCES):
		return "a security module forbids it; " + WaysOut
	case errors.Is(err, unix.EPERM):
		return "a seccomp profile, a chroot or a missing capability forbids it; " + WaysOut
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return "the kernel was built without user namespaces"
	}
	return ""
}

func explainMount(err error) string {
	if why := AppArmorRefuses(err); why != "" {
		return why + "; " + AppArmorFix()
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
