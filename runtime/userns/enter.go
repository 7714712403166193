package userns

// #include "entry.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/umask"
)

// Mode says how the identities inside relate to those of the host.
type Mode string

const (
	// ModeRoot is the host's (or an enclosing container's) root with
	// CAP_SYS_ADMIN: only the mount namespace is new.
	ModeRoot Mode = "root"
	// ModeFull maps root to the user and further ids to the ranges that
	// /etc/subuid and /etc/subgid give them.
	ModeFull Mode = "full map"
	// ModeSingle maps root to the user and nothing else.
	ModeSingle Mode = "single id"
	// ModeIdentity maps every id to itself: a root that lacks CAP_SYS_ADMIN,
	// as in an ordinary container.
	ModeIdentity Mode = "identity"
)

// Names of the variables that carry a request over the exec and the outcome
// to programs started later.
const (
	envRequest   = "_SHALE_USERNS"
	envNewUIDMap = "_SHALE_USERNS_NEWUIDMAP"
	envNewGIDMap = "_SHALE_USERNS_NEWGIDMAP"
	envUIDMap    = "_SHALE_USERNS_UIDMAP"
	envGIDMap    = "_SHALE_USERNS_GIDMAP"
	envMode      = "_SHALE_USERNS_MODE"
	envReason    = "_SHALE_USERNS_REASON"
	envOuter     = "_SHALE_USERNS_OUTER"
)

// Info is the outcome of Enter.
type Info struct {
	Mode Mode
	// Reason says why a lesser mode than the full map was taken; empty
	// otherwise.
	Reason string
	// UIDs and GIDs count the ids that can be used inside.
	UIDs, GIDs uint64
	// OuterUID and OuterGID are the effective ids outside.
	OuterUID, OuterGID int
}

// SingleID tells whether files can have no other owner than root.
func (i Info) SingleID() bool { return i.UIDs <= 1 || i.GIDs <= 1 }

// Options configure Enter.
type Options struct {
	// Force takes a mode without considering a better one; for tests and for
	// users who want the behaviour of a poorer machine.
	Force Mode
	// Logger receives what is worth knowing at debug level; may be nil.
	Logger *slog.Logger
}

// Error says which step of the entry failed and what to do about it.
type Error struct {
	Step string // unshare, newuidmap, writing uid_map, …
	Err  error
	Fix  string // one line; may be empty
}

func (e *Error) Error() string {
	msg := "enter user namespace: " + e.Step + ": " + e.Err.Error()
	if e.Fix != "" {
		msg += " (" + e.Fix + ")"
	}
	return msg
}

func (e *Error) Unwrap() error { return e.Err }

// Enter moves the process into new namespaces.
//
// Called outside, it does not return unless it fails: the process executes
// itself with the same arguments and runs main again. Called the second time,
// it returns what came out of it. It has to be called from main before
// anything was started or opened that an exec would lose, and every caller of
// the process reaches it again with the same arguments.
//
// Where the program defines shale_userns_wanted (entry.h) and the way in is
// the usual one, the process was moved before Go started and the first call
// returns already.
//
// Inside, the process is uid and gid 0 with all capabilities over its
// namespaces, has umask 022 and a mount namespace that receives the host's
// mounts but propagates none. In all modes but ModeRoot the environment tells
// containers/storage to behave as rootless. Needs Linux 4.6 or later
// (user_namespaces(7)).
func Enter(ctx context.Context, o Options) (Info, error) {
	if C.shale_userns.entered != 0 {
		return settle(o)
	}
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	f := gather(ctx)
	p, err := choose(f, o.Force)
	if err != nil {
		return Info{}, err
	}
	if o.Logger != nil {
		o.Logger.DebugContext(ctx, "entering namespaces", "mode", p.mode, "reason", p.reason)
	}
	if err := execSelf(p.environ(f, os.Environ())); err != nil {
		return Info{}, &Error{Step: "exec", Err: err}
	}
	return Info{}, nil
}

// Current tells what Enter settled on in this process or in an ancestor that
// started it; false when there was no entry.
func Current() (Info, bool) {
	mode := Mode(os.Getenv(envMode))
	if mode == "" {
		return Info{}, false
	}
	i := Info{Mode: mode, Reason: os.Getenv(envReason)}
	uid, gid, _ := strings.Cut(os.Getenv(envOuter), ":")
	i.OuterUID, _ = strconv.Atoi(uid)
	i.OuterGID, _ = strconv.Atoi(gid)
	i.UIDs, i.GIDs = countIDs("/proc/self/uid_map"), countIDs("/proc/self/gid_map")
	return i, true
}

// Here describes a process that stays where it is, in a mode of the caller's.
func Here(mode Mode) Info {
	return Info{
		Mode: mode, OuterUID: os.Geteuid(), OuterGID: os.Getegid(),
		UIDs: countIDs("/proc/self/uid_map"), GIDs: countIDs("/proc/self/gid_map"),
	}
}

// execSelf prefers the real path to /proc/self/exe: the kernel names the
// process after it.
func execSelf(env []string) error {
	const self = "/proc/self/exe"
	if path, err := os.Readlink(self); err == nil && sameFile(path, self) {
		if err := syscall.Exec(path, os.Args, env); !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return syscall.Exec(self, os.Args, env)
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// settle finishes in Go what the constructor began.
func settle(o Options) (Info, error) {
	if C.shale_userns.early != 0 {
		if err := tellEarly(int(C.shale_userns.uid), int(C.shale_userns.gid)); err != nil {
			return Info{}, &Error{Step: "environment", Err: err}
		}
	}
	mode, reason := Mode(os.Getenv(envMode)), os.Getenv(envReason)
	for _, k := range []string{envRequest, envNewUIDMap, envNewGIDMap, envUIDMap, envGIDMap} {
		if err := os.Unsetenv(k); err != nil {
			return Info{}, &Error{Step: "environment", Err: err}
		}
	}
	i, ok := Current()
	if !ok {
		return Info{}, &Error{Step: "environment", Err: errors.New(envMode + " is missing")}
	}
	if C.shale_userns.error != 0 {
		step := C.GoString(C.shale_userns.step)
		err := syscall.Errno(C.shale_userns.error)
		return Info{}, &Error{Step: step, Err: err, Fix: explainUnshare(err)}
	}
	if mode != ModeRoot {
		var err error
		if mode, reason, err = settleMaps(mode, reason, i); err != nil {
			return Info{}, err
		}
		if err := errors.Join(markRootless(i), keepHome(i)); err != nil {
			return Info{}, &Error{Step: "environment", Err: err}
		}
	}
	// A slave, not private: what the host unmounts later is not kept busy.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return Info{}, &Error{Step: "mount propagation", Err: err, Fix: explainMount(err)}
	}
	if err := errors.Join(umask.Set(), os.Setenv(envMode, string(mode)), os.Setenv(envReason, reason)); err != nil {
		return Info{}, &Error{Step: "environment", Err: err}
	}
	i, _ = Current()
	if o.Logger != nil {
		o.Logger.Debug("entered namespaces", "mode", i.Mode, "reason", i.Reason, "uids", i.UIDs, "gids", i.GIDs)
	}
	return i, nil
}

// tellEarly sets what Enter would have put into the environment before it
// executed the program again.
func tellEarly(uid, gid int) error {
	mode := ModeFull
	if uid == 0 {
		mode = ModeRoot
	}
	return errors.Join(
		os.Setenv(envMode, string(mode)),
		os.Setenv(envReason, ""),
		os.Setenv(envOuter, strconv.Itoa(uid)+":"+strconv.Itoa(gid)))
}

// markRootless tells containers/storage, which decides by these variables
// whether to use user xattrs and the user's own directories.
func markRootless(i Info) error {
	return errors.Join(
		os.Setenv("_CONTAINERS_USERNS_CONFIGURED", "done"),
		os.Setenv("_CONTAINERS_ROOTLESS_UID", strconv.Itoa(i.OuterUID)),
		os.Setenv("_CONTAINERS_ROOTLESS_GID", strconv.Itoa(i.OuterGID)))
}

// keepHome sets HOME where there is none to the user's home directory: libraries
// would look up that of uid 0, which the process seems to be. Without an entry in
// passwd(5) it is the root directory, as in containers, and never root's.
func keepHome(i Info) error {
	if os.Getenv("HOME") != "" {
		return nil
	}
	home := "/"
	if u, err := user.LookupId(strconv.Itoa(i.OuterUID)); err == nil && u.HomeDir != "" {
		home = u.HomeDir
	}
	return os.Setenv("HOME", home)
}

// settleMaps waits for the helper and falls back to a single id where it had
// no success.
func settleMaps(mode Mode, reason string, i Info) (Mode, string, error) {
	if mode == ModeSingle {
		return mode, reason, writeSingle(i)
	}
	report, err := awaitHelper()
	if err != nil {
		return mode, reason, &Error{Step: "await id map", Err: err}
	}
	if report == "" {
		return mode, reason, nil
	}
	if countIDs("/proc/self/uid_map") != 0 || countIDs("/proc/self/gid_map") != 0 {
		// Half a map cannot be taken back.
		return mode, reason, &Error{Step: mapStep(mode), Err: errors.New(report), Fix: "the ranges in /etc/subuid and in /etc/subgid must both be usable, see subuid(5)"}
	}
	if err := writeSingle(i); err != nil {
		return mode, reason, err
	}
	return ModeSingle, mapStep(mode) + ": " + report, nil
}

func mapStep(m Mode) string {
	if m == ModeIdentity {
		return "writing uid_map"
	}
	return "newuidmap"
}

// awaitHelper returns the helper's report, empty for success.
func awaitHelper() (string, error) {
	f := os.NewFile(uintptr(C.shale_userns.status_fd), "userns-status")
	defer f.Close()
	report, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	var ws unix.WaitStatus
	for {
		_, err = unix.Wait4(int(C.shale_userns.helper), &ws, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("wait for helper: %w", err)
	}
	text := strings.Join(strings.Fields(string(report)), " ")
	if ws.ExitStatus() == 0 {
		return "", nil
	}
	if text == "" {
		text = fmt.Sprintf("helper ended with status %d", ws.ExitStatus())
	}
	return text, nil
}

// writeSingle maps root to the user alone. The kernel wants setgroups(2)
// given up for it (user_namespaces(7)).
func writeSingle(i Info) error {
	for _, w := range []struct{ file, text string }{
		{"setgroups", "deny"},
		{"uid_map", fmt.Sprintf("0 %d 1", i.OuterUID)},
		{"gid_map", fmt.Sprintf("0 %d 1", i.OuterGID)},
	} {
		if err := writeProc("/proc/self/"+w.file, w.text); err != nil {
			return &Error{Step: "writing " + w.file, Err: err, Fix: explainUnshare(err)}
		}
	}
	return nil
}

func writeProc(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}
