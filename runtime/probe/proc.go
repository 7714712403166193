package probe

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

const envProc = "_SHALE_PROBE_PROC"

// init is for the process that tryProc starts, the first process of a pid namespace.
func init() {
	if os.Getenv(envProc) == "" {
		return
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		fmt.Fprint(os.Stderr, "mount proc: "+err.Error())
		os.Exit(1) //nolint:forbidigo // a child of our own, which has no main
	}
	os.Exit(0) //nolint:forbidigo // a child of our own, which has no main
}

func procCommand(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = []string{envProc + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	return cmd
}
