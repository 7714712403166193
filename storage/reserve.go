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

// Removing needs space, too: with each layer and each image that goes, the library
// writes its list anew beside the old one (layers.json, images.json), and makes
// directories to move the files to. On a full file system, or when the user's quota
// is used up, every removal would fail. So the store keeps a few files that have
// blocks and no content, and commands that remove take them away first.

// reserveState is the directory of the reserve in that of shale's state. There are
// many files because a file system can run out of inodes as well.
const (
	reserveState = "reserve"
	reserveFiles = 32
	reserveBytes = 128 << 10 // of each file
)

// reserveRoom is how much must be free for a build to make the reserve, and as many
// inodes as it has files: twice its size. Less space is left to builds.
const reserveRoom = 2 * reserveFiles * reserveBytes

// freeReserve gives the reserve to a command that removes layers or images, before
// it opens the store. A store without one may have no space for that: then what
// was remembered of former builds for build --explain goes, which nothing needs.
// Store.KeepReserve makes the reserve again.
func (l *Location) freeReserve() { freeReserve(l.so.GraphRoot) }

// FreeReserve gives the reserve to a build that removes layers at its end.
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
		_ = os.Remove(path) // what fails here says so where space is needed
	}
}

// ExplainState is the state directory of package explain, named here because
// OpenToRemove may remove it.
const ExplainState = "explain"

// KeepReserve makes again what OpenToRemove has taken of the reserve, as much as
// there is space for.
func (s *Store) KeepReserve() { s.fillReserve(0, 0) }

// makeReserve makes the reserve in a store without one, when its disk is not nearly
// full. It costs the reading of one directory when nothing is missing.
func (s *Store) makeReserve() { s.fillReserve(reserveRoom, 2*reserveFiles) }

// fillReserve makes the missing files of the reserve if so many bytes and inodes are
// free.
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

// reserveFile makes a file that has blocks. Nothing remains of one that cannot have
// them.
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
