package userns

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// WaysOut is advice for users of a container in which no namespaces are allowed.
const WaysOut = "in a container build as root, which works in place (runAsUser: 0, docker's --user 0), " +
	"or let it make namespaces (seccompProfile: {type: Unconfined}, docker's --security-opt seccomp=unconfined)"

// AppArmorFix returns the command that installs an AppArmor profile for this program.
// With the profile, the program may create user namespaces.
func AppArmorFix() string {
	self, err := os.Executable()
	if err != nil {
		self = "/usr/local/bin/shale"
	}
	return fmt.Sprintf(`run as root: printf 'abi <abi/4.0>,\ninclude <tunables/global>\nprofile shale %s flags=(unconfined) {\n  userns,\n}\n' `+
		`>/etc/apparmor.d/shale && apparmor_parser -r /etc/apparmor.d/shale`, self)
}

// AppArmorRefuses returns the reason if AppArmor caused err, which must be an error of
// entering a user namespace. It returns "" if AppArmor did not cause it or if that is not
// known.
//
// Since Linux 6.7 a profile may forbid user namespaces. The kernel then returns EACCES,
// but EPERM if a seccomp profile or a sysctl forbids them. Since 23.10, Ubuntu's kernels
// give a program without a profile a special profile without capabilities. On them the
// first mount is refused, not the namespace.
func AppArmorRefuses(err error) string {
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) {
		return ""
	}
	label := appArmorLabel()
	// Ubuntu's kernels give this label to a program without a profile that is in a user
	// namespace.
	without := !strings.HasSuffix(label, ")") || strings.HasPrefix(label, "unprivileged_userns ")
	switch {
	case without && sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor restricts user namespaces to programs with a profile (kernel.apparmor_restrict_unprivileged_userns is set)"
	case errors.Is(err, unix.EACCES) && strings.HasSuffix(label, ")"):
		return fmt.Sprintf("the AppArmor profile %q forbids user namespaces", label)
	}
	return ""
}

// appArmorLabel returns the AppArmor label of this process. The label is "unconfined", or
// the name of a profile followed by its mode in parentheses. Without AppArmor it is "".
func appArmorLabel() string {
	for _, file := range []string{"apparmor/current", "current"} {
		b, err := os.ReadFile("/proc/thread-self/attr/" + file) // #nosec G304 -- names are constants
		label := strings.TrimRight(string(b), "\x00\n")
		// The second file may also contain a label of SELinux or Smack.
		if err == nil && (label == "unconfined" || strings.HasSuffix(label, ")")) {
			return label
		}
	}
	return ""
}

// explainUnshare returns the reason for which user namespaces are forbidden, and the fix.
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
