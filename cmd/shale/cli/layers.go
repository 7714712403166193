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

// layersEnv chooses how the layers of the store are shown to steps.
const layersEnv = "SHALE_LAYERS"

// Values of layersEnv.
const (
	layersAuto    = "auto"
	layersOverlay = "overlay"
	layersNative  = "native"
)

// layersWay is how the layers of a store are shown to steps: by overlays of the
// kernel, or natively, by links and copies in ordinary directories.
type layersWay struct {
	// Native is set with a Reason.
	Native bool
	Reason layersReason
	// Detail explains the reason in the words of a build's first line.
	Detail string
	// Err is what the probe met; nil where none was needed.
	Err *overlay.UnsupportedError
}

// layersReason is why layers are shown natively: one of these, or an
// overlay.Cause.
type layersReason string

const (
	reasonInPlace      layersReason = "in place"
	reasonAskedFor     layersReason = "asked for"
	reasonOnOverlay    layersReason = "store on an overlay"
	reasonMountProgram layersReason = "mount program"
	reasonOwnersBeside layersReason = "owners beside the files"
)

// probeOverlays is overlay.Probe; tests have others.
type probeOverlays func(dir string, userXattr bool) (overlay.Features, error)

// chooseLayers decides how the layers of the store at l are shown. It is called
// inside the namespaces that info describes. What the probe finds is kept in the
// store if it is good news: the reason for a refusal may end, as when the module
// is loaded, so that is tried each time.
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

// layersGiven is what is decided without trying anything.
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

// probeState is the file of the store's state in which the conditions stand under
// which overlays worked.
const probeState = "overlay-works"

// probeLayers asks the store first, then the kernel.
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
		// A half written file is no answer, so that it need not be made and renamed.
		err = os.WriteFile(memory, []byte(conditions), 0o600)
	}
	if err != nil {
		// There is no room to try: a build will find that out, but not the
		// commands that make room.
		logger.Debug("overlays were not tried", "error", err)
	}
	return layersWay{}, nil
}

// probeConditions are what the answer of the probe depends on: the kernel, the
// file system, who mounts, and the label that a security module judges by.
func probeConditions(dir string, info userns.Info) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return fmt.Sprintf("kernel %s\ndevice %x\nids %s\nlabel %s\n", overlay.KernelRelease(), st.Dev, info.Mode, overlay.SecurityLabel()), nil
}

// checkOwners returns an error if files of the store cannot be given to the ids
// of the namespace, as on NFS: the server knows nothing of subordinate ids and
// refuses chown(2) to all users but root. File systems that hold overlays have no
// such server. For whatever reason the layers are shown natively, the file system was
// not necessarily asked.
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

// errnoOf leaves out paths that are gone.
func errnoOf(err error) error {
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return errno
	}
	return err
}

// describeUnsupported is the reason in the words of a build's first line.
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
