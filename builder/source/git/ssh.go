package git

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// withSSH lets git use ssh with the one agent and with known hosts only.
//
// Files and the agent's socket are named by descriptors of this process: there
// is nothing to leave behind, to quote, or to be too long for a socket.
func (r *Repositories) withSSH(ctx context.Context, c command, s Spec) (_ command, release func(), err error) {
	var open []io.Closer
	closeAll := func() {
		for _, o := range open {
			_ = o.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	var hosts []string
	known := false
	for _, name := range r.opts.KnownHosts {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		open = append(open, f)
		hosts = append(hosts, ofProcess(f))
		known = known || isKnown(s.host, f.Name())
	}
	if s.KnownHosts != "" && !known {
		f, err := memory(s.KnownHosts + "\n")
		if err != nil {
			return c, nil, err
		}
		open = append(open, f)
		hosts = append(hosts, ofProcess(f))
	}
	c.env = append(c.env, "GIT_SSH_VARIANT=ssh", "GIT_SSH_COMMAND="+sshCommand(hosts))
	if s.Agent != "" {
		socket, dir, err := r.listen(ctx, s.Agent)
		if err != nil {
			return c, nil, err
		}
		open = append(open, socket, dir)
		c.env = append(c.env, "SSH_AUTH_SOCK="+ofProcess(dir)+"/"+socketName)
	}
	return c, closeAll, nil
}

// sshCommand reads no configuration, asks nobody, and offers no key but the
// agent's.
func sshCommand(knownHosts []string) string {
	if len(knownHosts) == 0 {
		knownHosts = []string{"/dev/null"}
	}
	options := []string{
		"BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "IdentityFile=none",
		"ForwardAgent=no", "PermitLocalCommand=no", "ClearAllForwardings=yes",
		"ConnectTimeout=30", "ServerAliveInterval=15", "ServerAliveCountMax=4",
		"UserKnownHostsFile=" + strings.Join(knownHosts, " "),
	}
	return "ssh -F /dev/null -o '" + strings.Join(options, "' -o '") + "'"
}

const socketName = "agent"

// listen serves an agent in a directory of its own.
func (r *Repositories) listen(ctx context.Context, id string) (socket io.Closer, dir *os.File, err error) {
	if r.opts.Agent == nil {
		return nil, nil, fmt.Errorf("no SSH key %q forwarded from the client: give one with --ssh %s", id, id)
	}
	path, err := os.MkdirTemp(r.opts.WorkDir, "ssh-")
	if err != nil {
		return nil, nil, fmt.Errorf("make directory for the ssh agent: %w", err)
	}
	if dir, err = os.Open(path); err != nil {
		return nil, nil, fmt.Errorf("open directory for the ssh agent: %w", err)
	}
	if socket, err = r.opts.Agent(ctx, id, filepath.Join(path, socketName)); err != nil {
		return nil, nil, errors.Join(err, dir.Close())
	}
	return socket, dir, nil
}

// ofProcess names a file of ours for our children.
func ofProcess(f *os.File) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())
}

func memory(content string) (*os.File, error) {
	fd, err := unix.MemfdCreate("known_hosts", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("keep known hosts: %w", err)
	}
	f := os.NewFile(uintptr(fd), "known_hosts")
	if _, err := f.WriteString(content); err != nil {
		return nil, errors.Join(fmt.Errorf("keep known hosts: %w", err), f.Close())
	}
	return f, nil
}

// isKnown tells whether a file of known hosts has a key of the host. What the
// user has once accepted counts then, not what a scan has just found.
func isKnown(host, file string) bool {
	if name, port, err := net.SplitHostPort(host); err == nil {
		host = name
		if port != "22" {
			host = "[" + name + "]:" + port
		}
	}
	cmd := exec.Command("ssh-keygen", "-F", host, "-f", file) //nolint:noctx // reads one file
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	return cmd.Run() == nil
}
