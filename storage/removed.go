package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrRemoved is wrapped if another program removed files of the store that were in use:
// podman system reset removes a whole store, and podman's rmi and prune do not know about
// builds.
var ErrRemoved = errors.New("removed by another program")

// holdLayers keeps the directory of layers open. Removed uses it to find out whether the
// directory is still the same: while it is open, no other directory gets its inode
// number.
func (s *Store) holdLayers() {
	fd, err := unix.Open(s.layersDir(), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		s.layers = os.NewFile(uintptr(fd), s.layersDir())
	}
}

func (s *Store) layersDir() string {
	return filepath.Join(layerHome(s.GraphRoot(), s.lib.ImageStore()), driverName)
}

// Removed returns an error that wraps ErrRemoved if files were removed while the store
// was open: the store itself, a layer in the making, or one of dirs, which are
// directories of layers. The caller should call it only after a failure, to find the
// cause.
func (s *Store) Removed(dirs []string) error {
	if s.layers != nil {
		was, err := s.layers.Stat()
		if err != nil {
			return fmt.Errorf("look at %s: %w", s.layers.Name(), err)
		}
		is, err := os.Stat(s.layersDir())
		if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(was, is) {
			return fmt.Errorf("the store %s was %w while it was in use, as podman system reset does", s.GraphRoot(), ErrRemoved)
		}
	}
	if dir := s.missing.Load(); dir != nil {
		return s.removed(*dir)
	}
	for _, dir := range dirs {
		if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
			return s.removed(dir)
		}
	}
	return nil
}

func (s *Store) removed(dir string) error {
	name := strings.TrimPrefix(dir, s.GraphRoot()+string(filepath.Separator))
	return fmt.Errorf("%s in the store %s was %w while it was in use, as podman's rmi and prune do", name, s.GraphRoot(), ErrRemoved)
}

// noteMissing remembers dir for Removed, if dir, in which a layer is made, does not
// exist.
func (s *Store) noteMissing(dir string) {
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		s.missing.CompareAndSwap(nil, &dir)
	}
}
