// Package initproc is what a container's first process does until it executes
// the user's command: libcontainer's init. It is apart from package sandbox so
// that a program with nothing else in it, cmd/shale-init, starts in a fraction
// of the time of one with a front end and a registry client.
package initproc

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // namespaces are entered before Go starts
	"golang.org/x/sys/unix"
)

// Main does not return when libcontainer started the process as a container's
// first one, nor in the process of a trial, and does nothing otherwise. The variable keeps a user's "shale
// init" out. It must run in package initialisation or first in main, on the
// thread that will execute the command.
func Main() {
	trial()
	if len(os.Args) < 2 || os.Args[1] != "init" || os.Getenv("_LIBCONTAINER_INITPIPE") == "" {
		return
	}
	// Libcontainer sets this on a process that forks twice before it gets
	// here, and a fork loses it (PR_SET_PDEATHSIG(2const)). From here on
	// libcontainer keeps it over the change of user.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		os.Exit(255) //nolint:forbidigo // the container's first process has nobody to return to
	}
	installFilter()
	libcontainer.Init()
}
