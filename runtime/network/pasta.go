package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startLimit is how long pasta may take to come up.
const startLimit = 5 * time.Second

// startPasta makes a network namespace and lets pasta serve it. Whether that
// works cannot be told from versions or permissions, so the start itself is
// the probe.
func startPasta(ctx context.Context, o Options) (_ *Network, err error) {
	pasta := o.Pasta
	if pasta == "" {
		if pasta, err = exec.LookPath("pasta"); err != nil {
			return nil, errors.New("pasta is not installed (install the package passt)")
		}
	}
	if err := CheckTun(); err != nil {
		return nil, err
	}
	path := filepath.Join(o.Dir, "netns")
	if err := makeNamespace(path); err != nil {
		return nil, err
	}
	n := &Network{Mode: Private, Path: path, close: func() error { return removeNamespace(path) }}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	stop, err := runPasta(ctx, pasta, path, filepath.Join(o.Dir, "pasta.pid"))
	if err != nil {
		return nil, err
	}
	n.close = func() error {
		stop()
		return removeNamespace(path)
	}
	return n, nil
}

// CheckTun tells why /dev/net/tun cannot be used, without which there is no
// user-mode network.
func CheckTun() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w (modprobe tun; chmod 0666 /dev/net/tun)", err)
	}
	return unix.Close(fd)
}

// makeNamespace mounts a new network namespace at path. A bind mount is opened
// without ptrace(2) permission, unlike a process's entry in /proc, and keeps
// the namespace without keeping a process.
func makeNamespace(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("create network namespace: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		// Not unlocked: the thread has another network now and must end.
		runtime.LockOSThread()
		done <- unshareTo(path)
	}()
	if err := <-done; err != nil {
		return errors.Join(fmt.Errorf("create network namespace: %w", err), os.Remove(path))
	}
	return nil
}

func unshareTo(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
}

func removeNamespace(path string) error {
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount network namespace: %w", err)
	}
	return os.Remove(path)
}

// runPasta starts pasta and waits until the interface is up, which is when it
// writes its process id. It stays in the foreground, as a child that is killed
// when the builder is.
func runPasta(ctx context.Context, pasta, netns, pidFile string) (stop func(), err error) {
	// No port is forwarded in either direction and the gateway's address is
	// not the host: its loopback services stay out of reach.
	args := []string{
		"--foreground", "--config-net", "--quiet", "--no-map-gw",
		"-t", "none", "-u", "none", "-T", "none", "-U", "none",
		"--pid", pidFile, "--netns-only", "--netns", netns,
	}
	if inInitialUserNS() {
		// It would become nobody first, who may not open the namespace. It
		// gives up capabilities, file system and system calls by itself.
		args = append(args, "--runas", "0:0")
	}
	cmd := exec.Command(pasta, args...) //nolint:noctx // lives as long as the build, ended by stop
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// The signal comes when this thread ends, so it must not before pasta.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("pasta: %w", err)
	}
	stop = func() {
		_ = cmd.Process.Kill() // nothing to do when it has ended
		for range ended {
		}
		_ = os.Remove(pidFile) // may not be there yet
	}
	if err := awaitPasta(ctx, pidFile, ended); err != nil {
		stop()
		return nil, fmt.Errorf("pasta: %w: %s", err, lastLine(out.String()))
	}
	return stop, nil
}

func awaitPasta(ctx context.Context, pidFile string, ended <-chan error) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-ended:
			if err == nil {
				err = errors.New("ended at once")
			}
			return err
		case <-tick.C:
			if fi, err := os.Stat(pidFile); err == nil && fi.Size() > 0 {
				return nil
			}
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// inInitialUserNS tells whether the process's ids are the machine's own: all
// of them mapped to themselves (user_namespaces(7)).
func inInitialUserNS() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}
