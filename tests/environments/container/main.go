// Command container runs a command in a container like those of CI systems. It uses runc
// and must be run by root:
//
//	container -env NAME -rootfs DIR [-keep DIR] [-volume DIR] [-bind PATH]… -- CMD [ARG…]
//
// The environments are listed in environments.go. The root file system is an overlay over
// the directory given by -rootfs, as in Docker. Its changes are removed at the end,
// unless -keep names a directory for them. A later run with the same -keep continues in
// the same root file system; only one such run may be active at a time. With -bind, a
// path of the host is mounted at the same path in the container. With -volume, a
// directory of the host is mounted at /var/lib/containers.
//
// The command gets the environment and standard streams of this process, and the host's
// network. It also gets this process's working directory if the container has it. The
// exit status is that of the command, or 125 if container itself fails. The files that
// the container writes are in $SHALE_CONTAINER_DIR. If that is not set, they are in the
// first of /var/tmp, /tmp, /dev/shm and /run that can hold the upper directory of an
// overlay.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "container:", err)
		os.Exit(125)
	}
	os.Exit(code)
}

type options struct {
	env    environment
	rootfs string
	keep   string
	volume string
	binds  list
	args   []string
}

// list is a flag that may be given several times.
type list []string

func (l *list) String() string     { return strings.Join(*l, ",") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("container", flag.ContinueOnError)
	name := flags.String("env", "", "environment: "+strings.Join(names(), ", "))
	flags.StringVar(&o.rootfs, "rootfs", "", "directory that the root file system starts as")
	flags.StringVar(&o.keep, "keep", "", "directory that keeps what changes in the root file system")
	flags.StringVar(&o.volume, "volume", "", "directory to mount at /var/lib/containers")
	flags.Var(&o.binds, "bind", "path of the host that is in the container too")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var ok bool
	if o.env, ok = environments[*name]; !ok {
		return o, fmt.Errorf("unknown environment %q: want one of %s", *name, strings.Join(names(), ", "))
	}
	if o.args = flags.Args(); o.rootfs == "" || len(o.args) == 0 {
		return o, errors.New("-rootfs and a command are required")
	}
	return o, nil
}

func run(args []string) (code int, err error) {
	o, err := parse(args)
	if err != nil {
		return 0, err
	}
	dir, err := place(o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	root := filepath.Join(dir, "rootfs")
	defer func() { err = errors.Join(err, unix.Unmount(root, unix.MNT_DETACH)) }()
	if err := prepare(o, dir, root); err != nil {
		return 0, err
	}
	spec, err := o.spec(dir)
	if err != nil {
		return 0, err
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		return 0, err
	}
	return start(dir)
}

// envDir is the environment variable for the directory of the containers' changes.
const envDir = "SHALE_CONTAINER_DIR"

// place makes a directory for the container and mounts its root file system there. It
// tries several parent directories, because some file systems cannot hold the upper
// directory of an overlay. One of them is overlay itself, on which /var/tmp lies in a
// container.
func place(o options) (string, error) {
	parents := []string{"/var/tmp", "/tmp", "/dev/shm", "/run"}
	if dir := os.Getenv(envDir); dir != "" {
		parents = []string{dir}
	}
	var errs []error
	for _, parent := range parents {
		// The container would contain its own root file system.
		if o.shows(parent) {
			errs = append(errs, fmt.Errorf("%s: the container has it too (-bind)", parent))
			continue
		}
		dir, err := os.MkdirTemp(parent, "shale-container-")
		if err != nil {
			errs = append(errs, err)
			continue
		}
		err = mountRoot(o, dir, filepath.Join(dir, "rootfs"))
		if err == nil {
			return dir, nil
		}
		err = errors.Join(err, os.RemoveAll(dir))
		// -keep determines the upper directory, so other parent directories would fail
		// too.
		if o.keep != "" {
			return "", fmt.Errorf("there cannot be an overlay's changes in %s; name a directory on a disk or tmpfs by -keep: %w", o.keep, err)
		}
		errs = append(errs, fmt.Errorf("%s: %w", parent, err))
	}
	return "", fmt.Errorf("there is no place for the changes of an overlay; name a directory on a disk or tmpfs, such as a volume, by %s: %w", envDir, errors.Join(errs...))
}

// mountRoot mounts an overlay over the directory given by -rootfs.
func mountRoot(o options, dir, root string) error {
	changes := cmp.Or(o.keep, dir)
	for _, path := range []string{root, filepath.Join(changes, "upper"), filepath.Join(changes, "work")} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", o.rootfs, changes, changes)
	if err := unix.Mount("overlay", root, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mount the root file system: %w", err)
	}
	return nil
}

// prepare makes the mount points, and the files that container engines add.
func prepare(o options, dir, root string) error {
	dirs := []string{"proc", "sys", "dev", "etc", "tmp", "var/lib/containers"}
	for _, b := range o.binds {
		dirs = append(dirs, b)
	}
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(root, "tmp"), os.ModeSticky|0o777); err != nil {
		return err
	}
	for _, name := range engineFiles {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o644); err != nil {
			return err
		}
		content, err := os.ReadFile("/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(root, ".dockerenv"), nil, 0o644)
}

// engineFiles are mounted by Docker into every container.
var engineFiles = []string{"etc/resolv.conf", "etc/hosts", "etc/hostname"}

// start runs the bundle in dir and returns its exit status. If a signal ended runc, the
// status is 128 plus the signal number.
func start(dir string) (int, error) {
	cmd := exec.CommandContext(context.Background(), "runc", "--root", filepath.Join(dir, "state"), "run", "--bundle", dir, "--no-new-keyring", filepath.Base(dir))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}
