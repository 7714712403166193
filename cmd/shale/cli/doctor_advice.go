package cli

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/recorded"
	"github.com/shale-build/shale/runtime/userns"
)

// fixOfLayers returns advice for a store that cannot use overlays. It returns "" if no
// advice is needed or known.
func fixOfLayers(way layersWay) string {
	switch way.Reason {
	case reasonOnOverlay:
		return "put the store on a volume or on a disk (--root): an overlay cannot have its changes on another"
	case reasonMountProgram:
		return "use another store (--root), or one that podman does not use by a mount program (mount_program in storage.conf)"
	case reasonInPlace, reasonAskedFor, reasonOwnersBeside:
		return ""
	}
	if way.Err == nil {
		return ""
	}
	switch way.Err.Cause {
	case overlay.KernelTooOld:
		return "boot Linux 5.11 or later"
	case overlay.NoModule:
		fix := "run as root: modprobe overlay && echo overlay >/etc/modules-load.d/overlay.conf"
		if strings.Contains(way.Err.Label, ":") {
			fix += "; if SELinux forbids modprobe to read its files, label them: restorecon -R /lib/modules"
		}
		return fix
	case overlay.FileSystem:
		return "put the store on ext4, xfs with ftype=1 or btrfs (--root)"
	case overlay.SecurityModule:
		return "let the security module's policy allow overlays to " + way.Err.Label
	case overlay.Refused:
		return "let mount(2) be allowed: a seccomp profile or a security module forbids it"
	}
	return ""
}

// reasonOf returns the error in one line, without the advice that fixOf returns.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*recorded.ProbeError](err); ok {
		err = fmt.Errorf("owners of files cannot be recorded: %s: %w", e.Probe, e.Err)
	}
	if e, ok := errors.AsType[*userns.Error](err); ok {
		err = fmt.Errorf("a user namespace cannot be entered: %s: %w", e.Step, e.Err)
	}
	return oneLine(err)
}

// fixOf returns advice for a failed build. It returns "" if the error contains the
// advice or if no advice is known.
func fixOf(err error) string {
	if e, ok := errors.AsType[*userns.Error](err); ok {
		return e.Fix
	}
	if e, ok := errors.AsType[*recorded.ProbeError](err); ok {
		return e.Fix
	}
	for errno, fix := range map[unix.Errno]string{
		unix.ENOSPC: "free space or inodes where the store is (df -h, df -i; shale system prune), or put it elsewhere (--root)",
		unix.EDQUOT: "free space within the user's quota where the store is (quota -s; shale system prune), or put it elsewhere (--root)",
		unix.EROFS:  "put the store where files can be written (--root, --runroot)",
		unix.EACCES: "give the store to the user who builds, or put it elsewhere (--root, --runroot)",
	} {
		if errors.Is(err, errno) {
			return fix
		}
	}
	return ""
}
