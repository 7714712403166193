package fileop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// inNamespace is set for the test binary that runs in the user namespace.
const inNamespace = "FILEOP_TEST_IN_USERNS"

// TestMain runs the tests with more than one user id. As root, all ids are available. Any
// other user gets a user namespace with the ids of /etc/subuid.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 || os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	args := append([]string{"--user", "--map-root-user", "--map-auto", "--", "/proc/self/exe"}, os.Args[1:]...)
	cmd := exec.Command("unshare", args...)
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "find test binary:", err)
		os.Exit(1)
	}
	cmd.Args[len(cmd.Args)-len(os.Args)] = self
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		fmt.Fprintln(os.Stderr, "tests in a user namespace (needs unshare(1), newuidmap(1) and a range in /etc/subuid):", err)
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "start tests in a user namespace:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
