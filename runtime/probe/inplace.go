package probe

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/inplace"
)

// sysChrootFix is the fix for containers of CRI-O, which lack the capability by default.
const sysChrootFix = "add the capability SYS_CHROOT to the container (securityContext.capabilities.add; docker's --cap-add)"

// inPlace probes whether steps can run in the root directory of the container that the
// process is in. Package inplace checks this again before steps run.
func inPlace() Result {
	if err := inplace.Allowed(); err != nil {
		fix := "run shale in a container"
		if !errors.Is(err, inplace.ErrMachine) {
			fix = "mount /proc"
		}
		return Result{InPlace, Missing, err.Error(), fix}
	}
	if !HasCapability(unix.CAP_SYS_CHROOT) {
		return Result{InPlace, Missing, "without CAP_SYS_CHROOT images cannot be unpacked safely", sysChrootFix}
	}
	if err := unix.Access("/", unix.W_OK); err != nil {
		return Result{InPlace, Missing, "the root directory: " + err.Error(), "make the root file system writable (readOnlyRootFilesystem: false, no --read-only)"}
	}
	memory, err := inplace.Memory()
	if err != nil {
		return Result{InPlace, Degraded, err.Error(), "mount a tmpfs at /dev/shm"}
	}
	return Result{Name: InPlace, Status: OK, Detail: "in the container's root directory; secrets in " + memory}
}
