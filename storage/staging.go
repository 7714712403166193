package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.podman.io/storage/pkg/mount"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/filelock"
)

// Layers are made in shale's own staging directories, not in those of the driver below
// overlay/staging. podman and buildah with containers/storage before v1.54.0 (podman
// before 5.1) remove overlay/staging and all its content when one of their commands ends,
// even if another process uses it (Driver.Cleanup, drivers/overlay). Recording only needs
// that rename(2) works from a staging directory to the directory of layers.
//
// A staging directory NAME belongs to the process that holds a lock (flock(2)) on the
// file NAME.lock beside it. The lock file is made first and removed last. So if a
// directory has no lock file, or one that is not locked, its process was killed.

// stagingState is the directory of staging directories in shale's state directory.
const stagingState = "staging"

const lockSuffix = ".lock"

// stagingDir is one staging directory.
type stagingDir struct {
	path string
	lock *os.File
}

// layerHome returns the parent directory of the driver's directory of layers: the image
// store if there is one, otherwise the graph root.
func layerHome(graphRoot, imageStore string) string {
	if imageStore != "" {
		return imageStore
	}
	return graphRoot
}

// makeStagingBase makes the directory of staging directories and returns it.
func (s *Store) makeStagingBase() (string, error) {
	home := layerHome(s.GraphRoot(), s.lib.ImageStore())
	layers := filepath.Join(home, driverName)
	base := ownBase(home)
	if apart(home, layers) {
		base = strayBase(home)
	}
	err := os.Mkdir(base, 0o700)
	if errors.Is(err, os.ErrExist) {
		return base, nil
	}
	if err != nil {
		err = os.MkdirAll(base, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("create directory for layers in the making: %w", err)
	}
	s.spread(base)
	if err := copyLabel(layers, base); err != nil {
		s.logger.Debug("layers in the making do not have the label of layers", "error", err)
	}
	return base, nil
}

// ownBase returns the directory in which layers are usually made.
func ownBase(home string) string { return filepath.Join(home, stateDir, stagingState) }

// strayBase returns the directory in which layers are made if rename(2) from outside of
// the driver's directory does not work, because that directory is a mount point.
func strayBase(home string) string { return filepath.Join(home, driverName, stateDir) }

// apart reports whether a rename from home into its subdirectory layers fails, because
// the two are on different file systems or mounts.
func apart(home, layers string) bool {
	var above, below unix.Stat_t
	if unix.Stat(home, &above) != nil || unix.Stat(layers, &below) != nil {
		return false
	}
	if above.Dev != below.Dev {
		return true
	}
	mounted, err := mount.Mounted(layers)
	return err == nil && mounted
}

const selinuxLabel = "security.selinux"

// copyLabel sets the SELinux label of from, if it has one, on the directory to. Files
// made in to inherit the label, as they would in from. The policy has one type for
// layers, which containers may read, and another type for the rest of the graph root.
func copyLabel(from, to string) error {
	label := make([]byte, 256)
	n, err := unix.Lgetxattr(from, selinuxLabel, label)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read SELinux label of %s: %w", from, err)
	}
	if err := unix.Lsetxattr(to, selinuxLabel, label[:n], 0); err != nil {
		return fmt.Errorf("set SELinux label of %s: %w", to, err)
	}
	return nil
}

// newStagingDir makes a staging directory in base and locks it.
func newStagingDir(base string) (*stagingDir, error) {
	for {
		lock, err := os.CreateTemp(base, "*"+lockSuffix)
		if err != nil {
			return nil, fmt.Errorf("create staging directory: %w", err)
		}
		owned, err := lockNew(lock)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock staging directory: %w", err), os.Remove(lock.Name()), lock.Close())
		}
		if !owned {
			_ = lock.Close()
			continue
		}
		d := &stagingDir{path: strings.TrimSuffix(lock.Name(), lockSuffix), lock: lock}
		if err := os.Mkdir(d.path, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("create staging directory: %w", err), d.remove())
		}
		return d, nil
	}
}

// lockNew locks a lock file that was just made. It returns false if another process
// regarded the file as abandoned and removed it first.
func lockNew(lock *os.File) (owned bool, err error) {
	if locked, err := filelock.Try(lock, filelock.Exclusive); !locked || err != nil {
		return false, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(lock.Fd()), &st); err != nil {
		return false, err
	}
	return st.Nlink > 0, nil
}

// remove removes the directory with all its content, and its lock last.
func (d *stagingDir) remove() error {
	err := removeTree(d.path)
	if err == nil {
		err = d.release()
	}
	return errors.Join(err, d.lock.Close())
}

// finish removes the directory, which must be empty or gone, and its lock.
func (d *stagingDir) finish() error {
	err := os.Remove(d.path)
	if err == nil || errors.Is(err, os.ErrNotExist) {
		err = d.release()
	}
	return errors.Join(err, d.lock.Close())
}

func (d *stagingDir) release() error {
	if err := os.Remove(d.lock.Name()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove lock of staging directory: %w", err)
	}
	return nil
}
