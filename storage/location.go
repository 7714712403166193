package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/unshare"
	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

// Location is where a store is. It is known before the store is opened, which
// must be told whether overlays can be laid over its layers.
type Location struct {
	opts Options
	so   types.StoreOptions
}

// Locate reads storage.conf and applies opts. It creates nothing.
func Locate(opts Options) (*Location, error) {
	so, err := storeOptions(opts)
	if err != nil {
		return nil, fmt.Errorf("read storage.conf: %w", err)
	}
	return &Location{opts: opts, so: so}, nil
}

// GraphRoot is the directory of layers and images, which may not exist yet.
func (l *Location) GraphRoot() string { return l.so.GraphRoot }

// StateDir returns a directory for shale's own state beside the layers, private
// to the owner of the store, and creates it.
func (l *Location) StateDir(name string) (string, error) {
	return makeStateDir(l.so.GraphRoot, name, func(string) {})
}

// Statfs describes the file system that the store is on or will be created on.
func (l *Location) Statfs() (unix.Statfs_t, error) {
	var st unix.Statfs_t
	path, err := l.existing()
	if err == nil {
		if err = unix.Statfs(path, &st); err != nil {
			err = &os.PathError{Op: "statfs", Path: path, Err: err}
		}
	}
	return st, err
}

// existing is the graph root or the nearest directory above it that exists.
func (l *Location) existing() (string, error) {
	for path := l.so.GraphRoot; ; path = filepath.Dir(path) {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, unix.ENOENT) || filepath.Dir(path) == path {
			return "", &os.PathError{Op: "stat", Path: path, Err: err}
		}
	}
}

// OwnersBeside is Store.OwnersBeside. A store of which it was true once stays so,
// also where it is moved to: nothing tells which of its files have attributes.
func (l *Location) OwnersBeside() (bool, error) {
	if !l.opts.Recorded {
		return false, nil
	}
	mark, err := os.ReadFile(filepath.Join(l.so.GraphRoot, stateDir, ownershipFile))
	if err == nil && string(mark) == ownersAllBeside {
		return true, nil
	}
	path, err := l.existing()
	if err != nil {
		return false, err
	}
	_, err = unix.Getxattr(path, ownerRecord, nil)
	return errors.Is(err, unix.ENOTSUP), nil
}

// FileSystem is the name of the file system that the store is on or will be on.
func (l *Location) FileSystem() string {
	st, err := l.Statfs()
	if err != nil {
		return "unknown"
	}
	if st.Type == unix.EXT4_SUPER_MAGIC {
		return "ext4"
	}
	if name, ok := graphdriver.FsNames[graphdriver.FsMagic(st.Type)]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", st.Type)
}

// UserXattr is Store.UserXattr.
func (l *Location) UserXattr() bool { return unshare.IsRootless() }

// ForMountProgram reports whether the layers of the store are for a mount
// program, such as fuse-overlayfs: they mark deleted names by files (.wh.NAME),
// which the kernel's overlays show as they are. Once a store has such layers it
// stays so. podman makes them where storage.conf names a program, or where the
// kernel's overlay does not work; shale where the file system does not hold the
// marks of an overlay.
func (l *Location) ForMountProgram() bool {
	if slices.ContainsFunc(l.so.GraphDriverOptions, func(o string) bool {
		name, value, _ := strings.Cut(o, "=")
		return value != "" && (name == "mount_program" || strings.HasSuffix(name, ".mount_program"))
	}) {
		return true
	}
	flag, err := os.ReadFile(filepath.Join(l.so.GraphRoot, driverName, mountProgramFlag))
	return err == nil && strings.TrimSpace(string(flag)) == "true"
}

// Open opens the store and creates it where there is none. It is called as uid 0
// of a user namespace prepared for containers/storage, or as root. A store that
// another driver than overlay keeps is refused with ErrDriver.
func (l *Location) Open(noMounts bool) (*Store, error) {
	opts := l.opts
	opts.NoMounts = noMounts
	return open(l, opts)
}

// OpenToRemove is Open for a caller who removes layers or images. It gives the
// caller the reserve, so that this works on a full disk; the caller ends with
// Store.KeepReserve.
func (l *Location) OpenToRemove(noMounts bool) (*Store, error) {
	l.freeReserve()
	return l.Open(noMounts)
}
