package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	signals "github.com/moby/sys/signal"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/cmd/shale/cli/container"
	"github.com/shale-build/shale/cmd/shale/cli/display"
	"github.com/shale-build/shale/runtime/sandbox"
	"github.com/shale-build/shale/storage"
)

// defaultPath is the variable PATH of a container if the image does not set it.
const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// stopTimeout is the time that a command has to end after the stop signal, as in
// docker.
const stopTimeout = 10 * time.Second

// runEndTime is the longest time from a signal to the end of "shale run".
const runEndTime = stopTimeout + 5*time.Second

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "Run a command in a new container, in the foreground",
		ArgsUsage: "IMAGE [COMMAND [ARG...]]",
		Description: `The container is removed when its command ends; the exit status is that of the
command. Interrupted, shale asks the command to stop, by the image's STOPSIGNAL,
and kills it after 10 seconds, or when interrupted again.

Whatever stands behind IMAGE belongs to the command.`,
		Flags: append(registryFlags(),
			&cli.StringSliceFlag{Name: "add-host", Usage: "add `HOST:IP` to /etc/hosts"},
			&cli.StringFlag{Name: "entrypoint", Usage: "run `COMMAND` instead of the image's entrypoint"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set a variable: `KEY[=VALUE]`, without VALUE from the environment"},
			&cli.BoolFlag{Name: "interactive", Aliases: []string{"i"}, Usage: "connect standard input"},
			&cli.StringFlag{Name: "network", Value: "default", Usage: "default, none, host or private"},
			ownershipFlag(),
			&cli.StringFlag{Name: "platform", Usage: "run the image for `OS/ARCH[/VARIANT]`"},
			&cli.StringFlag{Name: "pull", Value: "missing", Usage: "pull the image: always, missing or never"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "do not show a pull"},
			&cli.BoolFlag{Name: "rm", Value: true, Usage: "accepted for docker's sake: containers are always removed"},
			&cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the container a terminal"},
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as `USER[:GROUP]`"},
			&cli.StringSliceFlag{Name: "volume", Aliases: []string{"v"}, Usage: "show a directory or file of the host: `SOURCE:TARGET[:ro]`"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "run in `DIR` of the container"},
		),
		Action: runAction,
	}
}

func runAction(c *cli.Context) error {
	if err := wantArguments(c, 1, -1); err != nil {
		return err
	}
	opts, err := newRunOptions(c)
	if err != nil {
		return usageError(c, err.Error())
	}
	return withStore(c, func(s *session) (err error) {
		if s.inPlace() {
			return &sandbox.NotInPlaceError{What: "shale run"}
		}
		services, err := newServices(c, s, opts.network)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, services.close()) }()
		services.net.unsaid()
		img, err := runImage(c, s, opts)
		if err == nil {
			img, err = s.store.HoldImage(img.ID)
		}
		if err == nil {
			img.TopLayer, err = s.store.Adopt(c.Context, img.TopLayer)
		}
		if err != nil {
			return err
		}
		defer pinLater(s, img)()
		config, err := readConfig(s.store, img)
		if err != nil {
			return err
		}
		spec, err := opts.spec(config.Config, img, os.LookupEnv)
		if err != nil {
			return err
		}
		return runContainer(c, s, services, spec, opts)
	})
}

// runOptions holds the checked flags of run.
type runOptions struct {
	image         string
	args          []string
	entrypoint    *string
	env           []string
	network, pull string
	user, workdir string
	platform      ocispec.Platform
	interactive   bool
	tty           bool
	volumes       []sandbox.Mount
	hosts         [][2]string
}

func newRunOptions(c *cli.Context) (runOptions, error) {
	o := runOptions{
		image: c.Args().First(), args: c.Args().Tail(), env: c.StringSlice("env"),
		user: c.String("user"), workdir: c.String("workdir"),
		interactive: c.Bool("interactive"), tty: c.Bool("tty"),
	}
	if c.IsSet("entrypoint") {
		entrypoint := c.String("entrypoint")
		o.entrypoint = &entrypoint
	}
	var errs [6]error
	o.network, errs[0] = parseChoice("network", c.String("network"), "default", "none", "host", "private")
	o.pull, errs[1] = parseChoice("pull", c.String("pull"), "always", "missing", "never")
	o.platform, errs[2] = onePlatform(c)
	o.volumes, errs[3] = parseVolumes(c.StringSlice("volume"))
	o.hosts, errs[4] = parseHosts(c.StringSlice("add-host"))
	if o.workdir != "" && !filepath.IsAbs(o.workdir) {
		errs[5] = fmt.Errorf("invalid --workdir %q: want an absolute path", o.workdir)
	}
	for _, err := range errs {
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

func parseVolumes(values []string) ([]sandbox.Mount, error) {
	var mounts []sandbox.Mount
	for _, v := range values {
		parts := strings.Split(v, ":")
		if len(parts) < 2 || len(parts) > 3 || !filepath.IsAbs(parts[1]) || len(parts) == 3 && parts[2] != "ro" && parts[2] != "rw" {
			return nil, fmt.Errorf("invalid --volume %q: want SOURCE:TARGET[:ro]", v)
		}
		if !strings.Contains(parts[0], "/") && parts[0] != "." && parts[0] != ".." {
			return nil, fmt.Errorf("invalid --volume %q: there are no named volumes, give a path", v)
		}
		source, err := filepath.Abs(parts[0])
		if err != nil {
			return nil, fmt.Errorf("invalid --volume %q: %w", v, err)
		}
		mounts = append(mounts, sandbox.Mount{
			Type: sandbox.Bind, Source: source, Target: parts[1], ReadOnly: len(parts) == 3 && parts[2] == "ro",
		})
	}
	return mounts, nil
}

func parseHosts(values []string) ([][2]string, error) {
	var hosts [][2]string
	for _, v := range values {
		host, ip, err := splitHost(v)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, [2]string{host, ip})
	}
	return hosts, nil
}

// runImage returns the image. It pulls the image if --pull requires it.
func runImage(c *cli.Context, s *session, o runOptions) (storage.Image, error) {
	img, name, err := find(s.store, o.image)
	// An image that was built on this machine, and is named without a registry, cannot
	// be pulled: there is no registry for it. FROM with --pull treats it in the same
	// way.
	built := err == nil && strings.HasPrefix(name, localRegistry+"/") && !builder.HasRegistry(o.image)
	if o.pull == "always" && !built {
		return pull(c, s, o.image, o.platform)
	}
	if errors.Is(err, storage.ErrImageUnknown) && o.pull == "missing" {
		return pull(c, s, o.image, o.platform)
	}
	return img, err
}

// pinAfter is the time that a container must run before the layers of its image are
// pinned.
const pinAfter = 300 * time.Millisecond

// pinLater pins the layers of the image if the container runs longer than pinAfter.
// Other programs then do not remove them. The caller must call stop before it closes
// the store.
func pinLater(s *session, img storage.Image) (stop func()) {
	pinned := make(chan struct{})
	timer := time.AfterFunc(pinAfter, func() {
		defer close(pinned)
		if err := s.store.UseImage(img.ID); err != nil {
			s.logger.Debug("the image that is run is not kept from other programs", "error", err)
		}
	})
	return func() {
		if !timer.Stop() {
			<-pinned
		}
	}
}

// spec combines the config of the image and the options of the user.
func (o runOptions) spec(config dockerspec.DockerOCIImageConfig, img storage.Image, env lookupEnv) (container.Spec, error) {
	entrypoint, cmd := config.Entrypoint, config.Cmd
	if o.entrypoint != nil {
		entrypoint, cmd = nil, nil
		if *o.entrypoint != "" {
			entrypoint = []string{*o.entrypoint}
		}
	}
	if len(o.args) > 0 {
		cmd = o.args
	}
	args := append(slices.Clone(entrypoint), cmd...)
	if len(args) == 0 {
		return container.Spec{}, fmt.Errorf("image %s has no command: give one", o.image)
	}
	id := make([]byte, 6)
	if _, err := rand.Read(id); err != nil {
		return container.Spec{}, fmt.Errorf("choose a name for the container: %w", err)
	}
	hostname := hex.EncodeToString(id)
	spec := container.Spec{TopLayer: img.TopLayer, User: config.User, Network: o.network, AddHosts: o.hosts}
	if o.user != "" {
		spec.User = o.user
	}
	spec.Process = sandbox.Spec{
		ID: "run-" + hostname, Args: args, Env: o.environment(config.Env, hostname, env),
		Cwd: config.WorkingDir, Hostname: hostname, Mounts: o.volumes, Terminal: o.tty,
		StopSignal: stopSignal(config.StopSignal), StopTimeout: stopTimeout,
	}
	if o.workdir != "" {
		spec.Process.Cwd = o.workdir
	}
	return spec, nil
}

// stopSignal returns the signal of STOPSIGNAL in a Dockerfile. It returns SIGTERM if
// name is not a signal, which is possible if another program built the image.
func stopSignal(name string) syscall.Signal {
	if number, err := signals.ParseSignal(name); err == nil {
		return number
	}
	return syscall.SIGTERM
}

// environment returns the environment of the image. Values of the user override it.
func (o runOptions) environment(image []string, hostname string, env lookupEnv) []string {
	merged := mergeEnv([]string{defaultPath, "HOSTNAME=" + hostname}, image)
	if o.tty {
		merged = mergeEnv(merged, []string{"TERM=xterm"})
	}
	var own []string
	for _, kv := range o.env {
		if !strings.Contains(kv, "=") {
			value, ok := env(kv)
			if !ok {
				continue
			}
			kv += "=" + value
		}
		own = append(own, kv)
	}
	return mergeEnv(merged, own)
}

// mergeEnv returns base with the variables of over, which override those of base.
func mergeEnv(base, over []string) []string {
	merged := slices.Clone(base)
next:
	for _, kv := range over {
		name, _, _ := strings.Cut(kv, "=")
		for i := range merged {
			if strings.HasPrefix(merged[i], name+"=") {
				merged[i] = kv
				continue next
			}
		}
		merged = append(merged, kv)
	}
	return merged
}

// runContainer connects the streams and runs the container. A statusError is returned
// if its exit status is not 0.
func runContainer(c *cli.Context, s *session, services *services, spec container.Spec, o runOptions) error {
	p := &spec.Process
	p.Stdout, p.Stderr, p.SingleID = display.Raw(c.App.Writer), display.Raw(c.App.ErrWriter), s.ids.SingleID()
	p.Owners, p.Ownership = services.deps.Owners, services.deps.Ownership
	if o.interactive {
		p.Stdin = c.App.Reader
	}
	if o.tty {
		restore, err := attachTerminal(c.Context, c, p)
		if err != nil {
			return err
		}
		defer restore()
	}
	dir, err := s.store.StateDir("run")
	if err != nil {
		return err
	}
	allowTime(c.Context, func(syscall.Signal) time.Duration { return runEndTime })
	code, err := container.Run(c.Context, container.Services{
		Store: s.store, Runner: services.deps.Runner, Network: services.deps.Network, StateDir: dir, NoMounts: s.layers.Native,
	}, spec)
	if notStarted, ok := errors.AsType[*sandbox.ExecError](err); ok {
		return exitError{error: err, code: notStarted.Code}
	}
	if err == nil && code != 0 {
		err = statusError(code)
	}
	return err
}

// exitError is an error with its own exit code.
type exitError struct {
	error
	code int
}

func (e exitError) Unwrap() error { return e.error }

// ExitCode returns the code.
func (e exitError) ExitCode() int { return e.code }

// attachTerminal puts the terminal of the user into raw mode, so that every key reaches
// the container. It also passes the size of the terminal to the container. restore
// resets the terminal.
func attachTerminal(ctx context.Context, c *cli.Context, p *sandbox.Spec) (restore func(), err error) {
	in, ok := c.App.Reader.(*os.File)
	if !ok || p.Stdin == nil || !term.IsTerminal(int(in.Fd())) {
		if ok && p.Stdin != nil {
			return nil, errors.New("the input device is not a terminal: leave out --tty or --interactive")
		}
		return func() {}, nil
	}
	fd := int(in.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("prepare terminal: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	sizes := make(chan sandbox.WinSize, 1)
	p.Size, p.Resize = windowSize(fd), sizes
	go followSize(ctx, fd, sizes)
	reset := func() { _ = term.Restore(fd, state) }
	atEnd(ctx, reset)
	return func() {
		cancel()
		reset()
	}, nil
}

func windowSize(fd int) sandbox.WinSize {
	width, height, err := term.GetSize(fd)
	if err != nil || width == 0 || height == 0 {
		return sandbox.WinSize{Width: 80, Height: 24}
	}
	return sandbox.WinSize{Width: uint16(width), Height: uint16(height)}
}

// followSize sends the size of the terminal each time that it changes, until ctx is
// cancelled.
func followSize(ctx context.Context, fd int, sizes chan<- sandbox.WinSize) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return
		case sizes <- windowSize(fd):
		}
	}
}
