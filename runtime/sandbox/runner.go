package sandbox

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/runc/libcontainer"
	"github.com/opencontainers/runc/libcontainer/configs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// Options are the settings of a Runner.
type Options struct {
	// StateDir is the directory for the state of running containers. New creates it if it
	// does not exist. It should be on a tmpfs, for example in XDG_RUNTIME_DIR.
	StateDir string
	// Logger receives libcontainer's messages at debug level. It may be nil.
	Logger *slog.Logger
	// NoDeviceCgroup makes the machine's root work without the device cgroup. A Runner
	// also does so if the cgroups are read-only.
	NoDeviceCgroup bool
	// Scope moves the process into a cgroup of version 2 below which the user may create
	// cgroups, and returns that cgroup. It is called at most once: when a container has
	// limits that cannot be applied below the process's present cgroup. It may be nil.
	Scope func(ctx context.Context) (cgroup string, err error)
}

// Runner runs containers. It is safe for concurrent use.
type Runner struct {
	stateDir string
	lock     *os.File
	log      *slog.Logger
	initial  bool
	devices  bool

	placing sync.Mutex
	cgroup  cgroup
	scope   func(ctx context.Context) (string, error) // nil after it was called

	// boundProc is true if the kernel refused to mount a new /proc. All later containers
	// get a bind mount of the builder's.
	boundProc atomic.Bool
}

// New returns a Runner for the namespaces that the process is in now. First it removes
// the state of builders that were killed. If another process does the same in this
// StateDir, New waits for it until ctx ends. The caller must call Close.
func New(ctx context.Context, o Options) (*Runner, error) {
	if !filepath.IsAbs(o.StateDir) {
		return nil, fmt.Errorf("state directory %q: path is not absolute", o.StateDir)
	}
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	divertLogrus(log)
	if err := sweep(ctx, o.StateDir); err != nil {
		log.Warn("remove state of killed builders", "error", err)
	}
	lock, err := openState(ctx, o.StateDir)
	if err != nil {
		return nil, err
	}
	initial := inInitialUserNS()
	devices := initial && !o.NoDeviceCgroup && deviceCgroup()
	return &Runner{
		stateDir: lock.Name(),
		lock:     lock,
		log:      log,
		initial:  initial,
		devices:  devices,
		cgroup:   findCgroup(devices),
		scope:    o.Scope,
	}, nil
}

// Dir returns the Runner's state directory, in which the caller may put files that must
// not outlive the Runner. The caller must remove them before Close. If the builder is
// killed, the next New removes them. Names in the directory must differ from the ids of
// containers.
func (r *Runner) Dir() string { return r.stateDir }

// Close removes the Runner's state directory, which must be empty. No container may be
// running.
func (r *Runner) Close() error {
	return errors.Join(os.Remove(r.stateDir), r.lock.Close())
}

var divertOnce sync.Once

// divertLogrus sends libcontainer's warnings to log instead of the user's terminal. They
// are about things that libcontainer tries and can do without. Logrus has one logger per
// process, so all warnings go to the logger of the first Runner.
func divertLogrus(log *slog.Logger) {
	divertOnce.Do(func() {
		logrus.SetOutput(io.Discard)
		logrus.AddHook(&logHook{log})
	})
}

type logHook struct{ log *slog.Logger }

func (*logHook) Levels() []logrus.Level { return logrus.AllLevels }

func (h *logHook) Fire(e *logrus.Entry) error {
	h.log.Debug(e.Message, "from", "libcontainer", "level", e.Level.String())
	return nil
}

// Run runs one command and waits for it and for all processes that it started. When the
// command exits, its other processes are killed.
//
// Run returns the command's exit status, or 128 plus the number of the signal that ended
// it. If the command could not be started, Run returns the exit code of a shell together
// with an *ExecError. If an id of the Spec is not mapped, the error wraps ErrUnmapped.
// When ctx ends, the whole container is stopped and Run returns the cause of ctx.
func (r *Runner) Run(ctx context.Context, s Spec) (int, error) {
	if err := s.validate(); err != nil {
		return 0, fmt.Errorf("run container: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	if _, err := offerRunner(); err != nil {
		r.log.Debug("containers start slower", "error", err)
	}
	if s.ID == "" {
		s.ID = strings.ToLower(rand.Text()[:16])
	}
	type result struct {
		code int
		err  error
	}
	done := make(chan result, 1)
	go func() {
		// The kernel sends the container's first process a signal when the thread that
		// started it ends (PR_SET_PDEATHSIG in prctl(2)). A locked thread does not end
		// while this function runs. It is unlocked at the end, so that the thread lives
		// on.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		s.BindProc = s.BindProc || r.boundProc.Load()
		code, err := r.run(ctx, &s)
		if !s.BindProc && refusesProc(err) {
			// The kernel refuses to mount a new /proc if parts of the present one are
			// covered by mounts, as they are in containers (mount_namespaces(7)).
			r.log.Debug("steps see the /proc of the container around", "error", err)
			r.boundProc.Store(true)
			s.BindProc = true
			code, err = r.run(ctx, &s)
		}
		done <- result{code, err}
	}()
	res := <-done
	return res.code, res.err
}

// run prepares the root file system, runs the container and removes the preparations.
func (r *Runner) run(ctx context.Context, s *Spec) (code int, err error) {
	left, _ := r.Unavailable(ctx, s.Limits)
	s.Limits = s.Limits.without(left)
	place := r.place(ctx, s.Limits)
	env := environment{initial: r.initial, devices: r.devices, rootfs: s.Rootfs, cgroup: place.path(s.ID, s.Limits), cgroupNS: place.shown() && place.unified}
	if r.initial && !r.devices && !s.Privileged {
		env.rootfs = filepath.Join(r.stateDir, s.ID+".rootfs")
		release, err := withoutDevices(s.Rootfs, env.rootfs)
		if err != nil {
			return 0, fmt.Errorf("no device cgroup: %w", err)
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	st, err := newStubs(s.Rootfs)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cleanErr := st.remove(); cleanErr != nil {
			err = errors.Join(err, fmt.Errorf("clean up after container: %w", cleanErr))
		}
	}()
	mounts, err := s.mounts(st, r)
	if err != nil {
		return 0, err
	}
	var binds []specs.Mount
	if env.nodes, env.rules, binds, err = s.place(st, r.initial); err != nil {
		return 0, err
	}
	mounts = append(mounts, binds...)
	if err := st.makeCwd(s.cwd(), s.UID, s.GID, s.Owners); err != nil {
		return 0, err
	}
	cfg, oci, err := s.containerConfig(s.ID, mounts, env)
	if err != nil {
		return 0, err
	}
	if s.Hooks != nil {
		release, err := r.bundle(s.ID, cfg, oci)
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	return r.contain(ctx, s, cfg, oci)
}

// mounts returns all mounts in order. It creates missing mount points and resolves the
// targets.
func (s *Spec) mounts(st *stubs, r *Runner) ([]specs.Mount, error) {
	out := s.standardMounts(r.initial)
	if c := r.current(); c.shown() {
		out = append(out, c.mount(s.Privileged))
	}
	for _, p := range []string{"/proc", "/dev", "/sys"} {
		if err := st.placeSpecial(p); err != nil {
			return nil, err
		}
		// Docker leaves these directories in the layer if a step runs in an image without
		// them.
		st.retain(p)
	}
	for _, f := range []struct{ source, target string }{{s.ResolvConf, "/etc/resolv.conf"}, {s.Hosts, "/etc/hosts"}} {
		if f.source == "" {
			continue
		}
		target, _, err := st.place(f.target, false)
		if err != nil {
			return nil, err
		}
		out = append(out, bindMount(f.source, target, true, "nosuid", "noexec"))
	}
	for _, m := range s.Mounts {
		one, err := m.place(st)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", m.Target, err)
		}
		out = append(out, one)
	}
	return out, nil
}

func (m Mount) place(st *stubs) (specs.Mount, error) {
	dir := true
	if m.Type == Bind {
		fi, err := os.Stat(m.Source)
		if err != nil {
			return specs.Mount{}, err
		}
		dir = fi.IsDir()
	}
	target, created, err := st.place(m.Target, dir)
	if err != nil {
		return specs.Mount{}, err
	}
	if m.Type == Tmpfs {
		return tmpfsMount(m, target, created), nil
	}
	var more []string
	if m.NoSUID {
		more = append(more, "nosuid")
	}
	if m.NoExec {
		more = append(more, "noexec")
	}
	return bindMount(m.Source, target, m.ReadOnly, more...), nil
}

// contain creates the container, runs the process in it and destroys the container.
func (r *Runner) contain(ctx context.Context, s *Spec, cfg *configs.Config, oci *specs.Spec) (code int, err error) {
	c, err := libcontainer.Create(r.stateDir, s.ID, cfg)
	if err != nil {
		return 0, fmt.Errorf("create container: %w", err)
	}
	defer func() {
		if derr := c.Destroy(); derr != nil {
			err = errors.Join(err, fmt.Errorf("destroy container: %w", derr))
		}
	}()
	sio, err := newStdio(s)
	if err != nil {
		return 0, err
	}
	defer sio.close()
	p := s.process(cfg, oci, sio)
	watch, err := r.supervise(c, s, p)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, watch.end()) }()
	err = c.Run(p)
	watch.started()
	if err != nil {
		return startError(errors.Join(err, watch.failure()))
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { r.stop(c, s, p, context.Cause(ctx), ended) })
	defer stop()
	sio.started()
	code = exitCode(p)
	close(ended)
	copyErr := sio.wait()
	if ctx.Err() != nil {
		return code, context.Cause(ctx)
	}
	if execErr := sio.execFailure(code); execErr != nil {
		return execErr.Code, execErr
	}
	return code, copyErr
}

func (r *Runner) signal(c *libcontainer.Container, s *Spec, number syscall.Signal) {
	if err := c.Signal(number); err != nil && !errors.Is(err, libcontainer.ErrNotRunning) {
		r.log.Warn("signal container", "id", s.ID, "signal", number, "error", err)
	}
}

func (s *Spec) process(cfg *configs.Config, oci *specs.Spec, sio *stdio) *libcontainer.Process {
	noNewPrivs := false
	p := &libcontainer.Process{
		Init: true, Args: s.Args, Env: s.Env, Cwd: s.cwd(),
		UID: int(s.UID), GID: int(s.GID),
		NoNewPrivileges: &noNewPrivs,
		Capabilities: &configs.Capabilities{
			Bounding:    oci.Process.Capabilities.Bounding,
			Effective:   oci.Process.Capabilities.Effective,
			Permitted:   oci.Process.Capabilities.Permitted,
			Inheritable: oci.Process.Capabilities.Inheritable,
			Ambient:     oci.Process.Capabilities.Ambient,
		},
		// The container's init process sends its warnings through logrus.
		LogLevel: fmt.Sprint(int(logrus.WarnLevel)),
	}
	if !s.SingleID {
		for _, g := range s.AdditionalGIDs {
			p.AdditionalGroups = append(p.AdditionalGroups, int(g))
		}
	}
	for _, l := range s.Rlimits {
		p.Rlimits = append(p.Rlimits, configs.Rlimit{Type: rlimits[l.Type], Soft: l.Soft, Hard: l.Hard})
	}
	cfg.Rlimits = p.Rlimits
	if s.Terminal {
		p.ConsoleSocket = sio.consoleChild
		p.ConsoleWidth, p.ConsoleHeight = s.Size.Width, s.Size.Height
		return p
	}
	p.Stdin, p.Stdout, p.Stderr = sio.stdin, sio.stdout, sio.stderr
	return p
}

func exitCode(p *libcontainer.Process) int {
	// Ignore the error: it has no more information than the state.
	state, err := p.Wait()
	if state == nil || err != nil && state.Sys() == nil {
		return 255
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// refusesProc reports whether a container could not be started because the kernel refused
// to mount /proc.
func refusesProc(err error) bool {
	return err != nil && errors.Is(err, unix.EPERM) && strings.Contains(err.Error(), `"proc"`) ||
		err != nil && strings.Contains(err.Error(), `mounting "proc"`) && strings.Contains(err.Error(), "operation not permitted")
}

// startError returns an *ExecError with the message of package os/exec, if libcontainer's
// error contains one. The code is 127 if the program was not found and 126 otherwise.
func startError(err error) (int, error) {
	text := err.Error()
	i := strings.Index(text, `exec: "`)
	if i < 0 {
		return 0, fmt.Errorf("start container: %w", err)
	}
	e := &ExecError{Code: 126, Message: text[i:]}
	if strings.Contains(e.Message, "not found") || strings.Contains(e.Message, "no such file") {
		e.Code = 127
	}
	return e.Code, e
}
