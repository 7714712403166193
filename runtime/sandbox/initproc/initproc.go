// Package initproc implements the first process of a container until it executes the
// user's command; libcontainer calls it "init". It is separate from package sandbox, so
// that the small program cmd/shale-init can contain it alone. That program starts in a
// fraction of the time of one with a front end and a registry client.
package initproc

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // enters namespaces early
	"golang.org/x/sys/unix"
)

// Main runs libcontainer's init or a trial, and does not return, if the process was
// started for one of them. Otherwise it returns at once. It recognizes libcontainer by an
// environment variable, so that a user's command "shale init" is not affected. A program
// must call Main during package initialization or first in main, on the thread that will
// execute the command.
func Main() {
	trial()
	if len(os.Args) < 2 || os.Args[1] != "init" || os.Getenv("_LIBCONTAINER_INITPIPE") == "" {
		return
	}
	// libcontainer sets the death signal on a process that forks twice before it reaches
	// this point. A forked process loses the setting (PR_SET_PDEATHSIG(2const)), so set
	// it again. Later, libcontainer restores it after the change of user.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		os.Exit(255) //nolint:forbidigo // the container's first process has nobody to return to
	}
	installFilter()
	libcontainer.Init()
}
