package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
)

// Removing needs space too. For each removed layer and image, the library writes its list
// again beside the old one (layers.json, images.json), and it makes directories to move
// the files to. On a full file system, or if the user's quota is used up, every removal
// would fail. The store therefore keeps some files that have blocks and no content.
// Commands that remove layers or images delete these files first.

// reserveState is the directory of the reserve in shale's state directory. The reserve
// has many files because a file system can also run out of inodes.
const (
	reserveState = "reserve"
	reserveFiles = 32
	reserveBytes = 128 << 10 // of each file
)

// reserveRoom is the free space that must exist before a build makes the reserve: twice
// the size of the reserve. At least twice reserveFiles inodes must be free too. If there
// is less, the space is left to builds.
const reserveRoom = 2 * reserveFiles * reserveBytes

// freeReserve deletes the reserve for a command that removes layers or images, before the
// command opens the store. If the store has no reserve and its disk is full, freeReserve
// instead removes the records of former builds for build --explain, which no command
// depends on. Store.KeepReserve makes the reserve again.
func (l *Location) freeReserve() { freeReserve(l.so.GraphRoot) }

// FreeReserve deletes the reserve for a build that removes layers at its end.
func (s *Store) FreeReserve() { freeReserve(s.GraphRoot()) }

func freeReserve(graphRoot string) {
	state := filepath.Join(graphRoot, stateDir)
	if len(list(filepath.Join(state, reserveState))) == 0 {
		if sp, err := SpaceOf(graphRoot); err == nil && sp.Full() {
			_ = rmtree.Remove(filepath.Join(state, ExplainState))
		}
		return
	}
	for _, path := range list(filepath.Join(state, reserveState)) {
		_ = os.Remove(path) // if space is needed, a later step reports the failure
	}
}

// ExplainState is the state directory of package explain. It is defined here because
// OpenToRemove may remove it.
const ExplainState = "explain"

// KeepReserve makes the deleted files of the reserve again, as far as there is space.
func (s *Store) KeepReserve() { s.fillReserve(0, 0) }

// makeReserve makes the reserve, if the disk is not nearly full. If no file is missing,
// it only reads one directory.
func (s *Store) makeReserve() { s.fillReserve(reserveRoom, 2*reserveFiles) }

// fillReserve makes the missing files of the reserve if at least room bytes and so many
// inodes are free.
func (s *Store) fillReserve(room, inodes uint64) {
	dir, err := s.StateDir(reserveState)
	if err == nil && len(list(dir)) < reserveFiles {
		err = fillReserve(dir, room, inodes)
	}
	if err != nil {
		s.logger.Debug("less space is reserved for removing images when the disk is full", "error", err)
	}
}

func fillReserve(dir string, room, inodes uint64) error {
	sp, err := SpaceOf(dir)
	if err != nil {
		return err
	}
	if sp.Free < room || sp.Inodes > 0 && sp.FreeInodes < inodes {
		return nil
	}
	for i := range reserveFiles {
		if err := reserveFile(filepath.Join(dir, strconv.Itoa(i))); err != nil {
			return err
		}
	}
	return nil
}

// reserveFile makes a file that has blocks. If there is no space for the blocks, it
// removes the file.
func reserveFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reserve space: %w", err)
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, reserveBytes)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("reserve space in %s: %w", path, err), os.Remove(path))
	}
	return nil
}
