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

// withSSH makes git use ssh with only the given agent and known hosts.
//
// Files and the agent's socket are passed as /proc/PID/fd paths of this process. So no
// file is left after a crash, no path needs quoting, and the path of the socket is never
// too long.
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

// sshCommand returns an ssh command that reads no configuration, asks no questions, and
// offers only the keys of the agent.
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

// listen serves an agent on a socket in a new directory.
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

// ofProcess returns the path of an open file for child processes.
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

// isKnown reports whether a known_hosts file has a key of the host. In that case the key
// that the user accepted counts, not a scanned key.
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
