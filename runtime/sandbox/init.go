package sandbox

import (
	"os"

	"github.com/opencontainers/runc/libcontainer"
	_ "github.com/opencontainers/runc/libcontainer/nsenter" // namespaces are entered before Go starts
	"golang.org/x/sys/unix"
)

// init turns the process into a container's first one when libcontainer
// started it for that. The variable keeps a user's "shale init" out.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "init" && os.Getenv("_LIBCONTAINER_INITPIPE") != "" {
		// Libcontainer sets this on a process that forks twice before it gets
		// here, and a fork loses it (PR_SET_PDEATHSIG(2const)). From here on
		// libcontainer keeps it over the change of user. Package
		// initialisation runs on the thread that will execute the command.
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			os.Exit(255) //nolint:forbidigo // the container's first process, which has no main
		}
		libcontainer.Init()
	}
}
