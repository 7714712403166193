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

// Location is the place of a store, which can be inspected before the store is opened. To
// open the store, the caller must know whether overlays can use its layers.
type Location struct {
	opts Options
	so   types.StoreOptions
}

// Locate reads storage.conf and applies opts. It creates no files.
func Locate(opts Options) (*Location, error) {
	so, err := storeOptions(opts)
	if err != nil {
		return nil, fmt.Errorf("read storage.conf: %w", err)
	}
	return &Location{opts: opts, so: so}, nil
}

// GraphRoot returns the directory of layers and images. It may not exist yet.
func (l *Location) GraphRoot() string { return l.so.GraphRoot }

// StateDir creates and returns a directory for shale's own state beside the layers. It is
// accessible only to the owner of the store. name must be a local relative path.
func (l *Location) StateDir(name string) (string, error) {
	return makeStateDir(l.so.GraphRoot, name, func(string) {})
}

// Statfs returns the result of statfs(2) for the file system that the store is on or will
// be created on.
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

// existing returns the graph root, or its nearest parent directory that exists.
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

// OwnersBeside returns the value that Store.OwnersBeside will return. If it was true for
// a store once, it stays true, even if the store moves to another file system: there is
// no record of which files have attributes.
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

// FileSystem returns the name of the file system that the store is on or will be created
// on.
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

// UserXattr returns the value that Store.UserXattr will return.
func (l *Location) UserXattr() bool { return unshare.IsRootless() }

// ForMountProgram reports whether the layers of the store are for a mount program, for
// example fuse-overlayfs. Such layers mark deleted names by files (.wh.NAME), which the
// kernel's overlays show as ordinary files. Once a store has such layers, it stays so.
// podman makes them if storage.conf names a mount program or if the kernel's overlay does
// not work. shale makes them if the file system cannot hold the marks of an overlay.
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

// Open opens the store, and creates it if it does not exist. It must be called as uid 0
// of a user namespace prepared for containers/storage, or as root. noMounts is
// Options.NoMounts. Open returns ErrDriver if another driver than overlay keeps the
// store, and ErrOwnership if its layers were unpacked with another set of ids.
func (l *Location) Open(noMounts bool) (*Store, error) {
	opts := l.opts
	opts.NoMounts = noMounts
	return open(l, opts)
}

// OpenToRemove is Open for a caller that removes layers or images. It first frees the
// reserve, so that the removal works on a full disk. At the end, the caller must call
// Store.KeepReserve.
func (l *Location) OpenToRemove(noMounts bool) (*Store, error) {
	l.freeReserve()
	return l.Open(noMounts)
}
