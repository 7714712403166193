package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// unlockedAge is how old a staging directory without a lock file must be to be
// taken for left behind: the driver makes the directory first and the lock right
// after. An empty one has nothing to lose, and whoever was about to use it asks
// for another.
const (
	unlockedAge = time.Minute
	emptyAge    = 250 * time.Millisecond
)

// stagingLock is the driver's name for the lock file of a staging directory.
const stagingLock = "staging.lock"

// prepareStaging readies the directory of staging directories, as the driver
// would make it, and removes, in the background, those whose owners were killed.
// One directory is listed, so it costs nothing when there is none.
func (s *Store) prepareStaging() {
	base := filepath.Join(s.GraphRoot(), driverName, "staging")
	if err := os.Mkdir(base, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return // the driver says why
	}
	s.spread(base)
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) == 0 {
		return
	}
	s.reaping.Go(func() {
		for _, e := range entries {
			if e.IsDir() {
				s.reap(filepath.Join(base, e.Name()))
			}
		}
	})
}

func (s *Store) reap(dir string) {
	fd, err := openStagingLock(dir)
	if err != nil {
		return
	}
	if fd >= 0 {
		defer func() { _ = unix.Close(fd) }()
	}
	if err := removeStaging(dir); err != nil {
		s.logger.Warn("a staging directory of a killed process stays behind", "path", dir, "error", err)
		return
	}
	s.logger.Debug("removed staging directory of a killed process", "path", dir)
}

// removeStaging removes a staging directory, its lock last: killed on the way, it
// leaves one that others can tell to be abandoned.
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
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("remove staging directory: %w", err)
		}
	}
	return removeTree(dir)
}

var errOwned = errors.New("staging directory belongs to a running process")

// openStagingLock takes the lock of a directory that nobody owns and returns its
// descriptor, -1 for a directory that never got a lock or lost it already.
//
// The driver locks with F_SETLK (fcntl(2)), which excludes other processes only
// and is given up when the process closes any descriptor of the file. An open
// file description lock (Linux 3.15) conflicts with those of this process too.
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
		// Closing fd would give up the lock of another store open in this
		// process. The descriptor stays until the process ends.
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
