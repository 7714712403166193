package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"go.podman.io/storage/pkg/mount"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// ownMount makes the directory of layers and the directories beside it one mount that is
// private to this mount namespace. This is needed because rename(2) does not work between
// mounts, even on one file system. Otherwise the driver would mount its own directory on
// itself. podman run by root does so on the machine, and that mount can spread into this
// namespace at any time.
//
// If ownMount fails, or if the directory of layers is on a file system of its own, layers
// are made inside that directory, see makeStagingBase.
func ownMount(so *types.StoreOptions, logger *slog.Logger) {
	so.GraphDriverOptions = append(so.GraphDriverOptions, "overlay.skip_mount_home=true")
	home := layerHome(so.GraphRoot, so.ImageStore)
	if err := mountOnItself(home); err != nil {
		logger.Debug("the store is not on a mount of its own", "path", home, "error", err)
	}
}

func mountOnItself(home string) error {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return fmt.Errorf("create %s: %w", home, err)
	}
	layers := filepath.Join(home, driverName)
	mounted, err := mount.Mounted(home)
	if err != nil {
		return fmt.Errorf("look at %s: %w", home, err)
	}
	within, err := mount.Mounted(layers)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", layers, err)
	}
	if !mounted || within {
		if done, err := cover(home, layers); err != nil || !done {
			return err
		}
	}
	if err := unix.Mount("", home, "", unix.MS_PRIVATE, ""); err != nil {
		return &os.PathError{Op: "make private", Path: home, Err: err}
	}
	return nil
}

// cover mounts home on itself, without the mounts below it. If that would show another
// directory in the place of layers, cover removes its mount and returns false.
func cover(home, layers string) (done bool, err error) {
	before, err := os.Stat(layers)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("look at %s: %w", layers, err)
	}
	if err := unix.Mount(home, home, "", unix.MS_BIND, ""); err != nil {
		return false, &os.PathError{Op: "mount", Path: home, Err: err}
	}
	if before == nil {
		return true, nil
	}
	after, err := os.Stat(layers)
	if err == nil && os.SameFile(before, after) {
		return true, nil
	}
	if err := unix.Unmount(home, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
		return false, &os.PathError{Op: "unmount", Path: home, Err: err}
	}
	return false, nil
}
