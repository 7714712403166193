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

// Mode is the way in which ids inside are mapped to ids of the host.
type Mode string

const (
	// ModeRoot is for root with CAP_SYS_ADMIN, of the host or of an outer container. Only
	// the mount namespace is new.
	ModeRoot Mode = "root"
	// ModeFull maps root to the user, and further ids to the user's ranges in /etc/subuid
	// and /etc/subgid.
	ModeFull Mode = "full map"
	// ModeSingle maps only root, to the user.
	ModeSingle Mode = "single id"
	// ModeIdentity maps every id to itself. It is for root without CAP_SYS_ADMIN, as in
	// an ordinary container.
	ModeIdentity Mode = "identity"
)

// Names of environment variables. They carry a request to the program that is executed
// again, and the result to programs that are started later.
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

// Info is the result of Enter.
type Info struct {
	Mode Mode
	// Reason is the reason for which Mode is not the full map. Otherwise it is empty.
	Reason string
	// UIDs and GIDs are the numbers of ids that can be used inside.
	UIDs, GIDs uint64
	// OuterUID and OuterGID are the effective ids outside the user namespace.
	OuterUID, OuterGID int
}

// SingleID reports whether root is the only owner that files can have.
func (i Info) SingleID() bool { return i.UIDs <= 1 || i.GIDs <= 1 }

// Options are the settings of Enter.
type Options struct {
	// Force makes Enter take this mode, even if a better one is possible. It is for
	// tests, and for users who want shale to behave as on a machine with fewer features.
	Force Mode
	// Logger receives messages at debug level. It may be nil.
	Logger *slog.Logger
}

// Error is returned if a step of the entry failed.
type Error struct {
	Step string // for example unshare, newuidmap or "writing uid_map"
	Err  error
	Fix  string // the remedy in one line; may be empty
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
// The first call, outside the namespaces, returns only if it fails: the process executes
// its program again with the same arguments and runs main again. The second call, inside,
// returns the result. Enter must be called from main, before the process starts or opens
// anything that an exec would lose. The second run of main must reach Enter again.
//
// If the program defines shale_userns_wanted (entry.h) and the entry is the usual one,
// the process was moved before Go started. Then the first call is inside already.
//
// Inside, the process has user id and group id 0 and all capabilities over its
// namespaces. Its umask is 022. Its mount namespace receives mounts from the host, but
// propagates none to the host. In all modes but ModeRoot, environment variables make
// containers/storage behave as rootless. Enter needs Linux 4.6 or later
// (user_namespaces(7)).
//
// Errors are of type *Error, except for the error of ctx.
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

// Current returns the result of Enter in this process or in an ancestor that started it.
// It returns false if Enter was not called.
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

// Here returns the Info of a process that stays in its present namespaces. The caller
// chooses the mode.
func Here(mode Mode) Info {
	return Info{
		Mode: mode, OuterUID: os.Geteuid(), OuterGID: os.Getegid(),
		UIDs: countIDs("/proc/self/uid_map"), GIDs: countIDs("/proc/self/gid_map"),
	}
}

// execSelf executes the program by its real path if possible, because the kernel names
// the process after the path. Otherwise it uses /proc/self/exe.
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

// settle finishes in Go the entry that the C constructor (entry.c) began.
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
	// Use a slave mount and not a private one: then an unmount on the host also unmounts
	// here, and this process does not keep the file system busy.
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

// tellEarly sets the environment variables that Enter would have set before executing the
// program again.
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

// markRootless sets the variables by which containers/storage decides to use user xattrs
// and the user's own directories.
func markRootless(i Info) error {
	return errors.Join(
		os.Setenv("_CONTAINERS_USERNS_CONFIGURED", "done"),
		os.Setenv("_CONTAINERS_ROOTLESS_UID", strconv.Itoa(i.OuterUID)),
		os.Setenv("_CONTAINERS_ROOTLESS_GID", strconv.Itoa(i.OuterGID)))
}

// keepHome sets HOME to the user's home directory if HOME is not set. Without it,
// libraries would look up the home directory of user id 0, the process's id inside. If
// the user has no entry in passwd(5), HOME becomes the root directory, as in containers,
// and never root's home directory.
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

// settleMaps waits for the helper process. If the helper failed, it falls back to a
// single id.
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
		// Only one of the maps was written, and a map cannot be changed later.
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

// awaitHelper returns the helper's report. The report is empty if the helper succeeded.
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

// writeSingle maps only root, to the user. For that the kernel requires that setgroups(2)
// is disabled first (user_namespaces(7)).
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
