package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/runtime/userns"
	"github.com/shale-build/shale/storage"
)

// layersEnv is the environment variable that selects how layers are shown to steps.
const layersEnv = "SHALE_LAYERS"

// Values of layersEnv.
const (
	layersAuto    = "auto"
	layersOverlay = "overlay"
	layersNative  = "native"
)

// layersWay is the way in which the layers of a store are shown to steps: with overlays
// of the kernel, or natively, with links and copies in ordinary directories.
type layersWay struct {
	// Native is set if layers are shown natively. Reason is then the reason.
	Native bool
	Reason layersReason
	// Detail explains the reason, as a text for the first line of a build.
	Detail string
	// Err is the error of the probe, or nil if Reason does not come from a probe.
	Err *overlay.UnsupportedError
}

// layersReason is the reason why layers are shown natively. It is one of these
// constants or an overlay.Cause.
type layersReason string

const (
	reasonInPlace      layersReason = "in place"
	reasonAskedFor     layersReason = "asked for"
	reasonOnOverlay    layersReason = "store on an overlay"
	reasonMountProgram layersReason = "mount program"
	reasonOwnersBeside layersReason = "owners beside the files"
)

// probeOverlays tries an overlay, as overlay.Probe does. Tests use other functions.
type probeOverlays func(dir string, userXattr bool) (overlay.Features, error)

// chooseLayers decides how the layers of the store at l are shown. It must be called
// inside the namespaces that info describes. If overlays work, chooseLayers stores this
// fact in the store. If they do not work, it probes again each time, because the cause
// may end, for example when the kernel module is loaded.
func chooseLayers(l *storage.Location, info userns.Info, probe probeOverlays, logger *slog.Logger) (layersWay, error) {
	asked := os.Getenv(layersEnv)
	switch asked {
	case "", layersAuto, layersOverlay, layersNative:
	default:
		return layersWay{}, fmt.Errorf("unknown value %q of %s: it is auto, overlay or native", asked, layersEnv)
	}
	way, err := layersGiven(l, info)
	if err != nil {
		return way, err
	}
	switch {
	case way.Native && asked == layersOverlay && way.Reason != reasonInPlace:
		return way, fmt.Errorf("%s=overlay cannot be: %s", layersEnv, way.Detail)
	case way.Native || asked == layersOverlay:
		return way, nil
	case asked == layersNative:
		return layersWay{Native: true, Reason: reasonAskedFor, Detail: layersEnv + " asks for it"}, nil
	}
	return probeLayers(l, info, probe, logger)
}

// layersGiven returns the decision if it does not require a probe.
func layersGiven(l *storage.Location, info userns.Info) (layersWay, error) {
	if info.Mode == modeInPlace {
		return layersWay{Native: true, Reason: reasonInPlace, Detail: info.Reason}, nil
	}
	st, err := l.Statfs()
	if err != nil {
		return layersWay{}, fmt.Errorf("look at the store's file system: %w", err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return layersWay{Native: true, Reason: reasonOnOverlay, Detail: "the store lies on an overlay"}, nil
	}
	beside, err := l.OwnersBeside()
	if err != nil {
		return layersWay{}, err
	}
	if beside {
		return layersWay{
			Native: true, Reason: reasonOwnersBeside,
			Detail: "the owners of files are recorded beside them, as the store's file system has, or had, no user attributes",
		}, nil
	}
	if l.ForMountProgram() {
		return layersWay{
			Native: true, Reason: reasonMountProgram,
			Detail: "the store's layers are for a mount program such as fuse-overlayfs",
		}, nil
	}
	return layersWay{}, nil
}

// probeState is the file in the state directory of the store that contains the
// conditions under which overlays worked.
const probeState = "overlay-works"

// probeLayers probes the kernel if the store does not contain the result for the
// current conditions.
func probeLayers(l *storage.Location, info userns.Info, probe probeOverlays, logger *slog.Logger) (layersWay, error) {
	tmp, err := l.StateDir("tmp")
	if err != nil {
		return layersWay{}, err
	}
	memory := filepath.Join(filepath.Dir(tmp), probeState)
	conditions, err := probeConditions(tmp, info)
	if err != nil {
		return layersWay{}, err
	}
	if known, err := os.ReadFile(memory); err == nil && string(known) == conditions {
		return layersWay{}, nil
	}
	_, err = probe(tmp, l.UserXattr())
	if unsupported, ok := errors.AsType[*overlay.UnsupportedError](err); ok {
		return layersWay{
			Native: true, Reason: layersReason(unsupported.Cause), Detail: describeUnsupported(l, unsupported), Err: unsupported,
		}, nil
	}
	if err == nil {
		// A partly written file does not match the conditions, so it is not necessary
		// to write a temporary file and rename it.
		err = os.WriteFile(memory, []byte(conditions), 0o600)
	}
	if err != nil {
		// The disk may be too full for a probe. A build finds that out by itself, and
		// commands that free space must not fail here.
		logger.Debug("overlays were not tried", "error", err)
	}
	return layersWay{}, nil
}

// probeConditions returns the conditions that determine the result of a probe. These
// are the kernel, the file system, the mode of the user namespace, and the label that a
// security module checks.
func probeConditions(dir string, info userns.Info) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return fmt.Sprintf("kernel %s\ndevice %x\nids %s\nlabel %s\n", overlay.KernelRelease(), st.Dev, info.Mode, overlay.SecurityLabel()), nil
}

// checkOwners returns an error if files in the store cannot be given to the ids of the
// user namespace. This happens on NFS: the server does not know subordinate ids and
// refuses chown(2) to all users except root. If overlays work, the file system is not
// NFS. If layers are shown natively for any reason, the file system may not have been
// probed.
func checkOwners(l *storage.Location, info userns.Info, way layersWay) error {
	if info.Mode != userns.ModeFull || !way.Native {
		return nil
	}
	tmp, err := l.StateDir("tmp")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(tmp, "owners-")
	if err != nil {
		return fmt.Errorf("try to change an owner: %w", err)
	}
	defer func() { _ = os.Remove(dir) }()
	if err := os.Lchown(dir, 1, 1); err != nil {
		return fmt.Errorf("the file system of the store (%s) does not let files be given to subordinate ids (chown: %w): use --isolation=recorded or %s=recorded, which need none, or put the store elsewhere with --root",
			l.FileSystem(), errnoOf(err), isolationEnv)
	}
	return nil
}

// errnoOf returns the errno in err, without the paths, because they do not exist any
// more. If err contains no errno, it returns err.
func errnoOf(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}

// describeUnsupported returns the reason as a text for the first line of a build.
func describeUnsupported(l *storage.Location, e *overlay.UnsupportedError) string {
	switch e.Cause {
	case overlay.KernelTooOld:
		if !l.UserXattr() {
			return "Linux " + e.Release + " has no volatile overlays; 5.10 or later is needed"
		}
		return "Linux " + e.Release + " has overlays for root only; 5.11 or later is needed"
	case overlay.NoModule:
		return "the kernel has no overlay module loaded, and loads none (as root: modprobe overlay)"
	case overlay.SecurityModule:
		return fmt.Sprintf("the security module forbids overlays to %q", e.Label)
	case overlay.Refused:
		return fmt.Sprintf("mounts are refused: %v", e.Err)
	case overlay.FileSystem:
	}
	return fmt.Sprintf("the file system of the store (%s) cannot hold an overlay: %s: %v", l.FileSystem(), e.Act, errnoOf(e.Err))
}
