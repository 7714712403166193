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

// startLimit is how long pasta may take to come up, which is 10 ms where nothing
// else runs, and stopLimit how long to end.
const (
	startLimit = 20 * time.Second
	stopLimit  = 5 * time.Second
)

// findPasta returns the program's path, or why there can be no private network
// whatever it would do.
func findPasta(path string) (string, error) {
	if path == "" {
		var err error
		if path, err = exec.LookPath("pasta"); err != nil {
			return "", errors.New("pasta is not installed (install the package passt)")
		}
	}
	return path, CheckTun()
}

// CheckTun returns why /dev/net/tun cannot be used, without which there is no
// user-mode network.
func CheckTun() error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w (modprobe tun; chmod 0666 /dev/net/tun)", err)
	}
	return unix.Close(fd)
}

// startPasta makes a network namespace and lets pasta serve it. Whether that
// works does not follow from versions or permissions, so the start itself is
// the probe.
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

// tryPasta starts pasta in the first way that works. The error is that of the
// first one, as the others are for special machines, or of one that hung.
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

// errTooSlow is a start that took longer than startLimit.
var errTooSlow = fmt.Errorf("not ready after %v", startLimit)

// pasta is one way to start pasta(1).
type pasta struct {
	program, namespace string
	// plain does without a view: for machines whose security module has other
	// rules, and for a program that a view hides.
	plain bool
	// ownInterface describes an interface to it, instead of that of the
	// default route, which it copies otherwise: for machines without such a
	// route, where versions before November 2024 do not start.
	ownInterface bool
}

// arguments are those of a pasta that opens namespace and writes its process id
// to pidFile.
func (p pasta) arguments(namespace, pidFile string) []string {
	// No port is forwarded in either direction and the gateway's address is
	// not the host: its loopback services stay out of reach.
	args := []string{
		"--foreground", "--config-net", "--quiet", "--no-map-gw",
		"-t", "none", "-u", "none", "-T", "none", "-U", "none",
		"--pid", pidFile, "--netns-only", "--netns", namespace,
	}
	if p.ownInterface {
		// The loopback interface is there on every machine. What pasta would
		// copy from it, and no container could use, is given: the name, the
		// hardware address, and addresses that no network has (RFC 5737).
		args = append(args, "-4", "-i", "lo", "-I", "eth0",
			"-a", "192.0.2.2", "-n", "30", "-g", "192.0.2.1", "-M", "52:54:00:12:35:02")
	}
	if inInitialUserNS() {
		// It would become nobody first, who may not open the namespace. It
		// gives up capabilities, file system and system calls by itself.
		args = append(args, "--runas", "0:0")
	}
	return args
}

// pidFile is the name of the file to which pasta writes its process id.
const pidFile = "pasta.pid"

// start starts pasta and waits until the interface is up, which is when it
// writes its process id. It stays in the foreground, as a child that is killed
// when the builder is.
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

// running is a pasta that was started.
type running struct {
	cmd  *exec.Cmd
	view *view // nil in the plain way
	// dir is where pidFile is.
	dir            *os.File
	started, ended chan error
}

// supervise starts pasta and waits for its end, on a thread of onOwnThread's: the
// signal of the death of the builder comes when the thread ends, which must not
// be before pasta does.
func (p pasta) supervise(run *running, out io.Writer) {
	err := p.launch(run, out)
	run.started <- err
	if err == nil {
		run.ended <- run.cmd.Wait()
		close(run.ended)
	}
}

// launch starts pasta from the calling thread, which it moves into a view.
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

// release gives up the view, or the directory.
func (r *running) release() error {
	if r.view != nil {
		return r.view.end()
	}
	return r.dir.Close()
}

// stop ends pasta and reports whether it has ended.
func (r *running) stop() (ended bool) {
	_ = unix.Unlinkat(int(r.dir.Fd()), pidFile, 0) // may not be there yet
	// Also the end of a pasta that a security module shields from signals.
	_ = r.release()
	_ = r.cmd.Process.Kill() // nothing to do when it has ended
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

// await waits until pasta has written its process id.
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

// explain returns err with pasta's own last words, which replace a mere exit
// status.
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

// inInitialUserNS reports whether the process's ids are the machine's own: all
// of them mapped to themselves (user_namespaces(7)).
func inInitialUserNS() bool {
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && slices.Equal(strings.Fields(string(b)), []string{"0", "0", "4294967295"})
}
