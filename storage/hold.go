package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A process holds the images and layers that it uses; other processes of shale do not
// remove them. A hold is a read lock on one byte of a file. The offset of the byte
// follows from the object's ID, and the lock is an open file description lock (fcntl(2),
// Linux 3.15). To remove an object, a process locks its byte for writing. If that fails,
// it skips the object. The kernel drops the locks of a process when the process ends for
// any reason, so no cleanup is needed. A hold costs one system call, and one more to open
// the file. containers/storage needs such locks as well.
//
// The byte that follows is locked while a process names, unnames or removes an image. An
// image that gets a name at this time is therefore not removed for having no name. Two
// objects may share an offset. In that case, a hold on one of them also holds the other.

// holdFile is the file of locks in shale's state directory. It stays empty.
const holdFile = "hold.lock"

// holds has the holds of this process on one store.
type holds struct {
	once sync.Once
	file *os.File
	err  error

	mu   sync.Mutex
	held map[int64]bool
}

// Hold prevents other processes from removing an image or a layer, given by its whole ID,
// until Close. If a process is removing the object, Hold waits for it. The object may
// therefore be gone when Hold returns, so the caller must look it up afterwards. podman
// and buildah do not know about holds, see Pin.
func (s *Store) Hold(id string) error {
	at, ok := holdOffset(id)
	if !ok {
		return nil
	}
	if err := s.openHolds(); err != nil {
		return err
	}
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	if s.holds.held[at] {
		return nil
	}
	if err := s.lockByte(unix.F_OFD_SETLKW, unix.F_RDLCK, at); err != nil {
		return fmt.Errorf("hold %s: %w", short(id), err)
	}
	s.holds.held[at] = true
	return nil
}

// claim makes sure that no other process holds the objects, and that none of them can be
// held until release is called. It waits for processes that remove one of them. It
// returns errHeld if another process holds one of them.
func (s *Store) claim(ids ...string) (release func(), err error) {
	if err := s.openHolds(); err != nil {
		return nil, err
	}
	var claimed []int64
	release = func() {
		for _, at := range claimed {
			s.unclaim(at)
		}
	}
	for _, id := range ids {
		at, ok := holdOffset(id)
		if !ok {
			continue
		}
		if err := s.claimByte(at); err != nil {
			release()
			return nil, fmt.Errorf("claim %s: %w", short(id), err)
		}
		claimed = append(claimed, at)
	}
	return release, nil
}

// errHeld is returned if another process holds an object.
var errHeld = errors.New("by another shale command, such as a running build")

func (s *Store) claimByte(at int64) error {
	for {
		err := s.lockByte(unix.F_OFD_SETLK, unix.F_WRLCK, at)
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return err
		}
		other := byteLock(unix.F_WRLCK, at)
		if err := unix.FcntlFlock(s.holds.file.Fd(), unix.F_OFD_GETLK, &other); err != nil {
			return err
		}
		if other.Type == unix.F_RDLCK {
			return errHeld
		}
		// Another process is removing the object, or was removing it a moment ago: wait.
		if err := s.lockByte(unix.F_OFD_SETLKW, unix.F_RDLCK, at); err != nil {
			return err
		}
		s.unclaim(at)
	}
}

// unclaim sets the lock of a byte back to this process's hold, or unlocks the byte if the
// process does not hold it.
func (s *Store) unclaim(at int64) {
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	var kind int16 = unix.F_UNLCK
	if s.holds.held[at] {
		kind = unix.F_RDLCK
	}
	// This cannot fail, because both kinds give a lock up.
	_ = s.lockByte(unix.F_OFD_SETLK, kind, at)
}

// lockNames prevents other processes from naming, unnaming or removing an image until
// unlock is called.
func (s *Store) lockNames(id string) (unlock func(), err error) {
	at, ok := holdOffset(id)
	if !ok {
		return func() {}, nil
	}
	if err := s.openHolds(); err != nil {
		return nil, err
	}
	at++
	if err := s.lockByte(unix.F_OFD_SETLKW, unix.F_WRLCK, at); err != nil {
		return nil, fmt.Errorf("lock the names of image %s: %w", short(id), err)
	}
	return func() { s.unclaim(at) }, nil
}

func (s *Store) openHolds() error {
	s.holds.once.Do(func() {
		s.holds.held = map[int64]bool{}
		var dir string
		if dir, s.holds.err = s.StateDir("."); s.holds.err == nil {
			s.holds.file, s.holds.err = os.OpenFile(filepath.Join(dir, holdFile), os.O_RDWR|os.O_CREATE, 0o600)
		}
	})
	if s.holds.err != nil {
		return fmt.Errorf("open the locks of images and layers in use: %w", s.holds.err)
	}
	return nil
}

// letGo ends all holds.
func (s *Store) letGo() error {
	if s.holds.file == nil {
		return nil
	}
	s.holds.mu.Lock()
	defer s.holds.mu.Unlock()
	clear(s.holds.held)
	all := unix.Flock_t{Type: unix.F_UNLCK}
	if err := unix.FcntlFlock(s.holds.file.Fd(), unix.F_OFD_SETLK, &all); err != nil {
		return fmt.Errorf("release images and layers in use: %w", err)
	}
	return nil
}

func (s *Store) lockByte(command int, kind int16, at int64) error {
	for {
		lock := byteLock(kind, at)
		err := unix.FcntlFlock(s.holds.file.Fd(), command, &lock)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func byteLock(kind int16, at int64) unix.Flock_t {
	return unix.Flock_t{Type: kind, Start: at, Len: 1}
}

// holdOffset returns the offset of an object's byte, which is 60 bits of its ID. It
// returns false if id is not a whole ID.
func holdOffset(id string) (int64, bool) {
	if len(id) != idLength {
		return 0, false
	}
	at, err := strconv.ParseInt(id[:15], 16, 64)
	return at << 1, err == nil
}
