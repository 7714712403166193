package git

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// setTimes sets the times of dir and all files below it. A directory is set after its
// entries.
func setTimes(dir string, at time.Time) error {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return err
	}
	ts := unix.NsecToTimespec(at.UnixNano())
	for _, path := range slices.Backward(paths) {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("set time of %s: %w", path, err)
		}
	}
	return nil
}
