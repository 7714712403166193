package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/filelock"
	"github.com/shale-build/shale/internal/rmtree"
)

// unlockedAge is the age from which a staging directory of the driver without a lock file
// counts as abandoned. The driver makes the lock right after the directory. An empty
// directory has no content to lose, so emptyAge is shorter.
const (
	unlockedAge = time.Minute
	emptyAge    = 250 * time.Millisecond
)

// stagingLock is the driver's name for the lock file in a staging directory.
const stagingLock = "staging.lock"

// prepareStaging makes the directory of staging directories and starts a sweep.
func (s *Store) prepareStaging() {
	s.stagingBase, s.prepareErr = s.makeStagingBase()
	s.sweepOnce.Do(s.sweep)
}

// Sweep removes, in the background, the staging directories of killed processes. Making a
// layer does this too, so only a build that makes no layer must call Sweep. If there is
// no such directory, Sweep only lists one directory.
func (s *Store) Sweep() {
	if len(list(ownBase(layerHome(s.GraphRoot(), s.lib.ImageStore())))) > 0 {
		s.sweepOnce.Do(s.sweep)
	}
}

func (s *Store) sweep() {
	home := layerHome(s.GraphRoot(), s.lib.ImageStore())
	left := append(list(ownBase(home)), list(strayBase(home))...)
	// Earlier versions of shale made layers in the driver's own directory.
	driver := list(filepath.Join(home, driverName, "staging"))
	if len(left)+len(driver) == 0 {
		return
	}
	s.reaping.Go(func() {
		for _, path := range left {
			s.reap(path, sweepOne)
		}
		for _, path := range driver {
			s.reap(path, sweepDriver)
		}
	})
}

// list returns the paths of the entries of dir.
func list(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	paths := make([]string, len(entries))
	for i, e := range entries {
		paths[i] = filepath.Join(dir, e.Name())
	}
	return paths
}

func (s *Store) reap(path string, sweep func(path string) error) {
	err := sweep(path)
	switch {
	case errors.Is(err, errOwned), errors.Is(err, os.ErrNotExist):
	case err != nil:
		s.logger.Warn("a staging directory of a killed process stays behind", "path", path, "error", err)
	default:
		s.logger.Debug("removed staging directory of a killed process", "path", path)
	}
}

// sweepOne removes a staging directory, given by its path or by the path of its lock,
// unless a process owns it.
func sweepOne(path string) error {
	path = strings.TrimSuffix(path, lockSuffix)
	lock, err := os.OpenFile(path+lockSuffix, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Lstat(path); err != nil {
			return err // both are gone
		}
		return removeTree(path)
	}
	if err != nil {
		return fmt.Errorf("open lock of %s: %w", path, err)
	}
	if locked, err := filelock.Try(lock, filelock.Exclusive); !locked || err != nil {
		_ = lock.Close()
		return errOwned
	}
	return (&stagingDir{path: path, lock: lock}).remove()
}

// sweepDriver removes a staging directory of the driver unless a process owns it.
func sweepDriver(dir string) error {
	fd, err := openStagingLock(dir)
	if err != nil {
		return err
	}
	if fd >= 0 {
		defer func() { _ = unix.Close(fd) }()
	}
	return removeStaging(dir)
}

// removeStaging removes a staging directory of the driver, its lock last. If the process
// is killed before the end, other processes can still see that the directory is
// abandoned.
func removeStaging(dir string) error {
	if err := detach(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list staging directory: %w", err)
	}
	for _, e := range entries {
		if e.Name() == stagingLock {
			continue
		}
		if err := rmtree.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove staging directory: %w", err)
		}
	}
	return removeTree(dir)
}

var errOwned = errors.New("staging directory belongs to a running process")

// openStagingLock locks a staging directory of the driver and returns the descriptor of
// the lock file. It returns -1 if the directory never had a lock file or has none any
// more, and errOwned if a process owns the directory.
//
// The driver locks with F_SETLK (fcntl(2)). Such a lock excludes only other processes,
// and it is lost when the process closes any descriptor of the file. An open file
// description lock (Linux 3.15) also conflicts with the locks of this process.
func openStagingLock(dir string) (int, error) {
	fd, err := unix.Open(filepath.Join(dir, stagingLock), unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, checkAbandoned(dir)
	}
	if err != nil {
		return -1, fmt.Errorf("open lock of %s: %w", dir, err)
	}
	held := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &held); err == nil && held.Type != unix.F_UNLCK && int(held.Pid) == os.Getpid() {
		// Closing fd would release the lock of another store that is open in this
		// process. The descriptor stays open until the process ends.
		return -1, errOwned
	}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		_ = unix.Close(fd)
		return -1, errOwned
	}
	return fd, nil
}

func checkAbandoned(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	age := unlockedAge
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 {
		age = emptyAge
	}
	if time.Since(info.ModTime()) < age {
		return errOwned
	}
	return nil
}
