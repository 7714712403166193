//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/shale-build/shale/runtime/scope/scopetest"
)

// usersystemd SOCKET DIR UID implements the part of a user's systemd that shale uses. On
// requests at SOCKET, it creates scopes in the cgroup DIR, delegates them to the user UID
// and moves processes there. It must run as root, and runs until it is killed.
func usersystemd(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: usersystemd SOCKET DIR UID")
	}
	socket, dir := args[0], args[1]
	uid, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	for _, d := range []string{filepath.Dir(socket), dir} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		return err
	}
	m := &scopetest.Manager{UID: uid, Start: func(name string, pid int) error {
		scope := filepath.Join(dir, name)
		if err := os.Mkdir(scope, 0o755); err != nil {
			return err
		}
		for _, f := range []string{".", "cgroup.procs", "cgroup.subtree_control"} {
			if err := os.Chown(filepath.Join(scope, f), uid, -1); err != nil {
				return err
			}
		}
		return os.WriteFile(filepath.Join(scope, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
	}}
	m.Serve(l, func(err error) { fmt.Fprintln(os.Stderr, "usersystemd:", err) })
	return nil
}
