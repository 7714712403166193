package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// startLimit is the time that pasta may take to start; on an idle machine it takes 10 ms.
// stopLimit is the time that it may take to end.
const (
	startLimit = 20 * time.Second
	stopLimit  = 5 * time.Second
)

// findPasta returns the path of pasta. It returns an error if a private network is not
// possible with any pasta.
func findPasta(path string) (string, error) {
	if path == "" {
		var err error
		if path, err = exec.LookPath("pasta"); err != nil {
			return "", errors.New("pasta is not installed (install the package passt)")
		}
	}
	return path, CheckTun()
}

// CheckTun returns an error if /dev/net/tun cannot be opened. A user-mode network needs
// it. The error names the fix.
func CheckTun() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w (modprobe tun; chmod 0666 /dev/net/tun)", err)
	}
	return unix.Close(fd)
}

// startPasta creates a network namespace and starts pasta for it. Versions and
// permissions do not show whether that works, so the start itself is the test.
func startPasta(ctx context.Context, o Options) (_ *Network, err error) {
	program, err := findPasta(o.Pasta)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(o.Dir, "netns")
	if err := makeNamespace(path); err != nil {
		return nil, err
	}
	stop, err := tryPasta(ctx, program, path, o.Logger)
	if err != nil {
		return nil, errors.Join(err, removeNamespace(path))
	}
	return &Network{Mode: Private, Path: path, close: func() error {
		stop()
		return removeNamespace(path)
	}}, nil
}

// tryPasta starts pasta in the first way that works. If none works, it returns the error
// of the first way, because the other ways are for special machines. If a start takes too
// long, it tries no further way and returns that error.
func tryPasta(ctx context.Context, program, path string, logger *slog.Logger) (stop func(), err error) {
	for _, p := range []pasta{
		{},
		{ownInterface: true},
		{plain: true},
		{plain: true, ownInterface: true},
	} {
		p.program, p.namespace = program, path
		stop, failure := p.start(ctx, logger)
		if failure == nil {
			return stop, nil
		}
		logger.DebugContext(ctx, "pasta did not start", "plain", p.plain, "own interface", p.ownInterface, "error", failure)
		if errors.Is(failure, errTooSlow) || ctx.Err() != nil {
			err = failure
			break
		}
		if err == nil {
			err = failure
		}
	}
	return nil, fmt.Errorf("pasta: %w", err)
}

// errTooSlow is returned if a start took longer than startLimit.
var errTooSlow = fmt.Errorf("not ready after %v", startLimit)

// pasta is one way to start pasta(1).
type pasta struct {
	program, namespace string
	// plain starts pasta without a view. It is for machines on which a security module
	// has other rules, and for a pasta program that a view hides.
	plain bool
	// ownInterface gives pasta the description of an interface. Otherwise pasta copies
	// the interface of the default route. It is for machines without a default route, on
	// which pasta versions before November 2024 do not start.
	ownInterface bool
}

// arguments returns the command line of pasta. pasta opens namespace and writes its
// process id to pidFile.
func (p pasta) arguments(namespace, pidFile string) []string {
	// Forward no ports in either direction. The gateway's address must not lead to the
	// host, so that the host's loopback services cannot be reached.
	args := []string{
		"--foreground", "--config-net", "--quiet", "--no-map-gw",
		"-t", "none", "-u", "none", "-T", "none", "-U", "none",
		"--pid", pidFile, "--netns-only", "--netns", namespace,
	}
	if p.ownInterface {
		// Every machine has the loopback interface, but a container cannot use its
		// properties. So the name, the hardware address and the addresses are given; the
		// addresses belong to no network (RFC 5737).
		args = append(args, "-4", "-i", "lo", "-I", "eth0",
			"-a", "192.0.2.2", "-n", "30", "-g", "192.0.2.1", "-M", "52:54:00:12:35:02")
	}
	if inInitialUserNS() {
		// Without this, pasta would change its user to nobody, which may not open the
		// namespace. pasta still drops capabilities, file system access and system calls.
		args = append(args, "--runas", "0:0")
	}
	return args
}

// pidFile is the name of the file to which pasta writes its process id.
const pidFile = "pasta.pid"

// start starts pasta and waits until the interface is up; pasta then writes its process
// id. pasta stays in the foreground as a child process, and is killed if the builder is
// killed.
func (p pasta) start(ctx context.Context, logger *slog.Logger) (stop func(), err error) {
	var out bytes.Buffer
	run := &running{started: make(chan error, 1), ended: make(chan error, 1)}
	onOwnThread(func() { p.supervise(run, &out) })
	if err := <-run.started; err != nil {
		return nil, err
	}
	if err := run.await(ctx); err != nil {
		if !run.stop() {
			return nil, err
		}
		return nil, explain(err, out.String())
	}
	if p.ownInterface {
		if err := copyRoutes(p.namespace); err != nil {
			logger.DebugContext(ctx, "steps wait for what cannot be reached", "error", err)
		}
	}
	return func() { run.stop() }, nil
}

// running is a pasta process that was started.
type running struct {
	cmd  *exec.Cmd
	view *view // nil for a plain start
	// dir is the directory of pidFile.
	dir            *os.File
	started, ended chan error
}

// supervise starts pasta and waits for its end. It must run on a thread of onOwnThread:
// the kernel kills pasta when the thread that started it ends, so this thread must live
// until pasta has ended.
func (p pasta) supervise(run *running, out io.Writer) {
	err := p.launch(run, out)
	run.started <- err
	if err == nil {
		run.ended <- run.cmd.Wait()
		close(run.ended)
	}
}

// launch starts pasta from the calling thread. If p is not plain, it first moves the
// thread into a view.
func (p pasta) launch(run *running, out io.Writer) (err error) {
	namespace, dir := p.namespace, filepath.Dir(p.namespace)
	if p.plain {
		run.dir, err = os.Open(dir)
	} else if run.view, err = enterView(p.namespace); err == nil {
		namespace, dir, run.dir = run.view.path, "/tmp", run.view.tmp
	}
	if err != nil {
		return fmt.Errorf("make a place for the network namespace: %w", err)
	}
	cmd := exec.Command(p.program, p.arguments(namespace, filepath.Join(dir, pidFile))...) //nolint:noctx // lives as long as the build, ended by stop
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Stdout, cmd.Stderr = out, out
	run.cmd = cmd
	if err := cmd.Start(); err != nil {
		return errors.Join(err, run.release())
	}
	return nil
}

// release ends the view, or closes the directory of a plain start.
func (r *running) release() error {
	if r.view != nil {
		return r.view.end()
	}
	return r.dir.Close()
}

// stop ends pasta. It reports whether pasta has ended within stopLimit.
func (r *running) stop() (ended bool) {
	_ = unix.Unlinkat(int(r.dir.Fd()), pidFile, 0) // may not exist yet
	// This also ends a pasta that a security module protects from signals.
	_ = r.release()
	_ = r.cmd.Process.Kill() // fails if it has ended
	limit := time.NewTimer(stopLimit)
	defer limit.Stop()
	for {
		select {
		case _, more := <-r.ended:
			if !more {
				return true
			}
		case <-limit.C:
			return false
		}
	}
}

// await waits until pasta has written its process id. It returns an error if pasta ends
// or startLimit is over.
func (r *running) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errTooSlow)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-r.ended:
			if err == nil {
				err = errors.New("ended at once")
			}
			return err
		case <-tick.C:
			var st unix.Stat_t
			if unix.Fstatat(int(r.dir.Fd()), pidFile, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Size > 0 {
				return nil
			}
		}
	}
}

// explain returns err with the last line of pasta's output. If err is only an exit
// status, it is replaced by that line.
func explain(err error, output string) error {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	last := lines[len(lines)-1]
	if last == "" {
		return err
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.New(last)
	}
	return fmt.Errorf("%w: %s", err, last)
}

// inInitialUserNS reports whether the process is in the machine's initial user namespace,
// in which all ids are mapped to themselves (user_namespaces(7)).
func inInitialUserNS() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}
