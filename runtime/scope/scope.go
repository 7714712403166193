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

// limit is how long systemd may take for everything. A user's instance that was
// started with the session answers within milliseconds.
const limit = 30 * time.Second

// ErrNoManager is wrapped by errors of Enter where no systemd runs for the user.
var ErrNoManager = errors.New("no systemd runs for the user")

// Options configure Enter.
type Options struct {
	// UID is the user's outside of the user namespace that the process may be
	// in. systemd compares it with the one that the kernel tells it.
	UID int
	// Sockets are those to ask, first come first served; nil for the usual ones.
	Sockets []string
	// Cgroup returns the process's control group, as a path from the root of
	// the hierarchy of version 2, or "" if that is not known.
	Cgroup func() string
}

// Enter moves the process, and nothing that it has started, into a new transient
// scope, whose control group it returns. Processes may be moved further only to
// groups below that one. The scope ends, with everything below its group, when
// the last process in it has ended.
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

// Offered returns nil if a systemd of the user's can be asked for a scope, else an
// error that wraps ErrNoManager.
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

// remedy is how root starts a systemd for the user, where the machine's first process
// is systemd (sd_booted(3)).
func remedy(uid int) string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return ""
	}
	return fmt.Sprintf(" (as root: loginctl enable-linger %d)", uid)
}

// userSockets are those of the user's systemd and of the user's bus. The first one
// is what systemctl --user asks, and there without a bus.
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

// privateSocket is systemd's own, which is no bus.
const privateSocket = "systemd/private"

// property is one of a unit, in the words of systemd's D-Bus interface.
type property struct {
	Name  string
	Value dbus.Variant
}

// auxiliary describes a unit to be started together with another.
type auxiliary struct {
	Name       string
	Properties []property
}

// start has the systemd behind a socket start a scope with the process in it.
func start(ctx context.Context, socket string, uid int, name string) error {
	// The library's error about a socket that is not there has lost its cause.
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
		// All controllers that the user has. A step that runs out of memory
		// does not end the scope then, either (OOMPolicy in systemd.scope(5)).
		{"Delegate", dbus.MakeVariant(true)},
		// One that failed is forgotten, too.
		{"CollectMode", dbus.MakeVariant("inactive-or-failed")},
	}
	var job dbus.ObjectPath
	manager := conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
	err = manager.CallWithContext(ctx, "org.freedesktop.systemd1.Manager.StartTransientUnit", 0,
		name, "fail", properties, []auxiliary{}).Store(&job)
	return orTimeout(ctx, err)
}

// orTimeout replaces what became of a connection when ctx ended.
func orTimeout(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// awaitMove waits until the process is in the scope: systemd answers before that.
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
