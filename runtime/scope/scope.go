package scope

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// limit is the time limit for all requests of Enter. If the user's instance of systemd
// was started with the session, it answers within milliseconds.
const limit = 30 * time.Second

// ErrNoManager is wrapped by the errors of Enter and Offered if no systemd runs for the
// user.
var ErrNoManager = errors.New("no systemd runs for the user")

// Options are the settings of Enter.
type Options struct {
	// UID is the user's id outside the user namespace that the process may be in. systemd
	// compares it with the id that the kernel reports for the process.
	UID int
	// Sockets are the sockets to ask, in order, until one of them starts the scope. nil
	// means the usual ones.
	Sockets []string
	// Cgroup must be set. It returns the process's control group as a path from the root
	// of the hierarchy of version 2, or "" if the group is not known.
	Cgroup func() string
}

// Enter moves the process into a new transient scope and returns the scope's control
// group. Processes that it started before are not moved. The caller may then move
// processes only to groups below the returned one. When the last process of the scope
// ends, systemd removes the scope and all groups below it.
//
// If no systemd runs for the user, the error wraps ErrNoManager. Other errors come from
// systemd or from the connection to it. Enter also fails if systemd takes longer than 30
// seconds.
func Enter(ctx context.Context, o Options) (cgroup string, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer after %v", limit))
	defer cancel()
	sockets := o.Sockets
	if sockets == nil {
		sockets = userSockets(o.UID)
	}
	name := fmt.Sprintf("shale-%d-%s.scope", os.Getpid(), strings.ToLower(rand.Text()[:8]))
	var errs []error
	for _, s := range sockets {
		err := start(ctx, s, o.UID, name)
		if err == nil {
			return awaitMove(ctx, o.Cgroup, name)
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			errs = append(errs, fmt.Errorf("ask systemd at %s: %w", s, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		return "", fmt.Errorf("%w%s", ErrNoManager, remedy(o.UID))
	}
	return "", errors.Join(errs...)
}

// Offered returns nil if the user's systemd accepts connections, so that Enter can ask it
// for a scope. Otherwise it returns an error that wraps ErrNoManager.
func Offered(ctx context.Context, uid int) error {
	var d net.Dialer
	for _, s := range userSockets(uid) {
		conn, err := d.DialContext(ctx, "unix", s)
		if err == nil {
			return conn.Close()
		}
	}
	return fmt.Errorf("%w%s", ErrNoManager, remedy(uid))
}

// remedy returns a hint for the error: the command with which root starts a systemd for
// the user. It returns "" if the machine's first process is not systemd (sd_booted(3)).
func remedy(uid int) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ""
	}
	return fmt.Sprintf(" (as root: loginctl enable-linger %d)", uid)
}

// userSockets returns the sockets of the user's systemd and of the user's bus. systemctl
// --user also asks systemd's own socket first, which exists without a bus.
func userSockets(uid int) []string {
	own := filepath.Join("/run/user", strconv.Itoa(uid))
	dirs := []string{own}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && filepath.Clean(dir) != own {
		dirs = []string{dir, own}
	}
	var sockets []string
	for _, d := range dirs {
		sockets = append(sockets, filepath.Join(d, privateSocket), filepath.Join(d, "bus"))
	}
	return sockets
}

// privateSocket is systemd's own socket. It is not a bus, so it needs no Hello.
const privateSocket = "systemd/private"

// property is a property of a unit, as defined by systemd's D-Bus interface.
type property struct {
	Name  string
	Value dbus.Variant
}

// auxiliary describes a unit that is started together with another one.
type auxiliary struct {
	Name       string
	Properties []property
}

// start asks the systemd at a socket to start a scope that contains the process.
func start(ctx context.Context, socket string, uid int, name string) error {
	// If the socket does not exist, the error of package dbus does not wrap the cause.
	if _, err := os.Stat(socket); err != nil {
		return err
	}
	conn, err := dbus.Dial("unix:path="+dbus.EscapeBusAddressValue(socket), dbus.WithContext(ctx))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // everything has been said
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))}); err != nil {
		return orTimeout(ctx, err)
	}
	if !strings.HasSuffix(socket, privateSocket) {
		if err := conn.Hello(); err != nil {
			return orTimeout(ctx, err)
		}
	}
	properties := []property{
		{"Description", dbus.MakeVariant("shale, with limits for its steps")},
		{"PIDs", dbus.MakeVariant([]uint32{uint32(os.Getpid())})},
		// Delegate all controllers that the user has. With this setting, a step that runs
		// out of memory does not end the scope either (OOMPolicy in systemd.scope(5)).
		{"Delegate", dbus.MakeVariant(true)},
		// systemd must also forget a scope that failed.
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
	}
	var job dbus.ObjectPath
	manager := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	err = manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.StartTransientUnit", 0,
		name, "fail", properties, []auxiliary{}).Store(&job)
	return orTimeout(ctx, err)
}

// orTimeout returns the cause of ctx if ctx ended, because err is then only a
// consequence.
func orTimeout(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// awaitMove waits until the process is in the scope, because systemd answers earlier.
func awaitMove(ctx context.Context, cgroup func() string, name string) (string, error) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if now := cgroup(); filepath.Base(now) == name {
			return now, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("systemd did not move the process into %s: %w", name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
