package inplace

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/filelock"
)

// hidden is the directory, below the root directory, of all files that are not in place.
// Its directory own holds the container's own files, and image holds the files of the
// image.
const (
	hidden   = ".shale-inplace"
	ownName  = "own"
	imgName  = "image"
	newName  = "new"
	lockName = "lock"
)

// Root is the root directory of the container. It holds the container's own files. After
// Begin it holds the files of the image, until a caller needs the container's own files
// again. Only one process at a time can have it open. A Root is safe for concurrent use,
// but Conceal and Guard must be called first.
type Root struct {
	// dir is the path of fd, as it is written in mountinfo.
	dir       string
	fd        int
	lock      *os.File
	protected []string
	log       *slog.Logger
	guard     *guard
	// vault hides files with logins from steps. It is nil if there are none.
	vault *vault

	mu sync.RWMutex
	// at is the set of files that is in place.
	at state
	// before is the state of the container's own files when they were moved away. It
	// omits the files in open. changed is set if a step changed one of the others. told
	// is set when changed was returned to a caller.
	before  *imprints
	open    inodes
	changed *ChangedError
	told    atomic.Bool
	// discarding waits for the removals that Discard started. They run one at a time, and
	// the last one sets discarded to its error.
	discarding sync.WaitGroup
	discard    sync.Mutex
	discarded  error
}

// state is the set of files that is in place. It is ownPartly or imagePartly if moving
// them failed in the middle.
type state int

const (
	ownFiles state = iota
	ownPartly
	imagePartly
	imageFiles
)

// ErrReadOnly is returned by OpenRoot if the container's root file system is read-only.
var ErrReadOnly = errors.New("the root file system of this container is read-only: building in place needs a writable one (readOnlyRootFilesystem: false, no --read-only)")

// OpenRoot locks the root directory of the container and returns it. protected lists
// absolute paths that stay in place during steps, for example the store and the build
// context. If an earlier build was killed, OpenRoot first removes its files and puts the
// container's own files back. It returns ErrReadOnly on a read-only file system, and
// another error if another build has the lock. A nil log is allowed. The caller must call
// Close.
func OpenRoot(protected []string, log *slog.Logger) (*Root, error) {
	return openRoot("/", protected, log)
}

func openRoot(dir string, protected []string, log *slog.Logger) (_ *Root, err error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	r := &Root{dir: dir, fd: fd, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.release())
		}
	}()
	for _, p := range protected {
		if p = filepath.Clean(p); p != "/" {
			r.protected = append(r.protected, strings.TrimPrefix(p, "/"))
		}
	}
	if err := r.claim(); err != nil {
		return nil, err
	}
	return r, r.recover()
}

// claim creates the hidden directory and locks it.
func (r *Root) claim() error {
	err := unix.Mkdirat(r.fd, hidden, 0o700)
	if errors.Is(err, unix.EROFS) {
		return ErrReadOnly
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("build in place: make /%s: %w", hidden, err)
	}
	dir, err := openDir(r.fd, hidden)
	if err != nil {
		return fmt.Errorf("build in place: open /%s: %w", hidden, err)
	}
	defer func() { _ = unix.Close(dir) }()
	lock, err := unix.Openat(dir, lockName, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("build in place: %w", err)
	}
	r.lock = os.NewFile(uintptr(lock), lockName)
	if locked, err := filelock.Try(r.lock, filelock.Exclusive); err != nil {
		return fmt.Errorf("build in place: %w", err)
	} else if !locked {
		return errors.New("another build is using the root directory of this container: build in place one after the other, or each in a container of its own")
	}
	for _, name := range []string{imgName, ownName, newName} {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("build in place: %w", err)
		}
	}
	return nil
}

// recover restores the container's own files after a build was killed. If the directory
// own has entries, the files in their place are those of the image and are removed.
func (r *Root) recover() error {
	return r.moving(func(m *mover, own, img int) error {
		names, err := readNames(own)
		if err != nil {
			return fmt.Errorf("build in place: %w", err)
		}
		if len(names) > 0 {
			r.log.Warn("a build in this container was killed: its files are removed and the container's own put back")
			if err := m.restore(r.fd, own); err != nil {
				return fmt.Errorf("put the container's own files back after a build was killed: %w", err)
			}
		}
		return newMover(nil).clear(img, "")
	})
}

// restore removes the files in place and moves the entries of own back. If the mark
// exists, the files in place may be the container's own, so nothing is removed.
// Afterwards the tree is as before. Only directories that were being moved when a build
// was killed keep the time of that moment.
func (m *mover) restore(root, own int) error {
	var st unix.Stat_t
	if unix.Fstatat(own, leavingMark, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		if err := m.clear(root, ""); err != nil {
			return err
		}
		if err := mark(own); err != nil {
			return err
		}
	}
	if err := m.back(own, root, ""); err != nil {
		return err
	}
	if err := likeTop(own, root); err != nil {
		return err
	}
	return unmark(own)
}

// likeTop copies the owner, mode and attributes of the open directory src to dst. One of
// them is the root directory, the other one holds its metadata while it has other files.
// The times of the root directory are not preserved.
func likeTop(src, dst int) error {
	var st unix.Stat_t
	err := unix.Fstat(src, &st)
	if err == nil {
		err = likeOwner(src, dst, &st)
	}
	if err != nil {
		return fmt.Errorf("give the root directory its owner, mode and attributes: %w", err)
	}
	return nil
}

// leavingMark is the name of a directory in own. It exists while some of the container's
// own files may be in place and others in own. The twins of directories are made in it.
const leavingMark = ".shale-moving"

func (r *Root) places() (own, img int, done func(), err error) {
	dir, err := openDir(r.fd, hidden)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("build in place: open /%s: %w", hidden, err)
	}
	defer func() { _ = unix.Close(dir) }()
	if own, err = openDir(dir, ownName); err != nil {
		return 0, 0, nil, fmt.Errorf("build in place: %w", err)
	}
	if img, err = openDir(dir, imgName); err != nil {
		_ = unix.Close(own)
		return 0, 0, nil, fmt.Errorf("build in place: %w", err)
	}
	return own, img, func() { _, _ = unix.Close(own), unix.Close(img) }, nil
}

// moving calls move with the open directories own and image, and with a mover that does
// not touch the paths of Spared.
func (r *Root) moving(move func(m *mover, own, img int) error) error {
	own, img, done, err := r.places()
	if err != nil {
		return err
	}
	defer done()
	paths, err := r.Spared()
	if err != nil {
		return err
	}
	return move(newMover(paths), own, img)
}

// Spared returns the paths that belong neither to the container's own files nor to the
// image: mount points, the protected paths of OpenRoot, and the hidden directory. They
// have no leading slash. It returns an error if the mount points cannot be read.
func (r *Root) Spared() ([]string, error) {
	points, err := MountPoints()
	if err != nil {
		return nil, err
	}
	spared := []string{hidden}
	for _, p := range points {
		if below, ok := strings.CutPrefix(p, strings.TrimSuffix(r.dir, "/")+"/"); ok {
			spared = append(spared, below)
		}
	}
	return append(spared, r.protected...), nil
}

// Protected returns the protected paths of OpenRoot, without leading slash. An image must
// not have files there.
func (r *Root) Protected() []string { return r.protected }

// Dir returns the path of the root directory.
func (r *Root) Dir() string { return r.dir }

// Nursery returns a directory on the container's root file system. Files that are created
// there can be renamed to Dir. It is not part of the root file system of a step.
func (r *Root) Nursery() string { return filepath.Join(r.dir, hidden, newName) }

// Begin puts the files of the image in place for a step. Until End it blocks other calls
// of Begin, and of Own. It returns a *ChangedError if an earlier step changed the
// container's own files. After an error End must not be called.
func (r *Root) Begin() error {
	r.mu.Lock()
	err := r.unchanged()
	if err == nil {
		err = r.swapIn()
	}
	if err != nil {
		r.mu.Unlock()
		return err
	}
	return nil
}

// End ends the step that Begin started. The files of the image stay in place until Own,
// Leave or Close puts the container's own files back.
func (r *Root) End() { r.mu.Unlock() }

// Own puts the container's own files in place and keeps them there until release is
// called. Several callers may hold them at a time. Own returns a *ChangedError if a step
// changed them. After that, Begin and Leave return this error as well. Close puts the
// files back nevertheless.
func (r *Root) Own() (release func(), err error) {
	release, err = r.ownAsTheyAre()
	if err != nil {
		return nil, err
	}
	if err := r.unchanged(); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// unchanged returns the *ChangedError, if there is one. The caller must hold mu.
func (r *Root) unchanged() error {
	if r.changed == nil {
		return nil
	}
	r.told.Store(true)
	return r.changed
}

// ownAsTheyAre is Own, but without an error if a step changed the files.
func (r *Root) ownAsTheyAre() (release func(), err error) {
	for {
		r.mu.RLock()
		if r.at == ownFiles {
			return r.mu.RUnlock, nil
		}
		r.mu.RUnlock()
		r.mu.Lock()
		err = r.swapOut()
		r.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// Leave is for a step that no known step follows. It must be called between Begin and
// End. It puts the container's own files in place and calls Discard. It returns a
// *ChangedError if a step changed those files.
func (r *Root) Leave() error {
	if err := r.swapOut(); err != nil {
		return err
	}
	r.Discard()
	return r.unchanged()
}

// Discard removes the files of the image in the background. It is for the time after a
// step that no known step follows. The caller must ensure that the container's own files
// stay in place until Close or the next Begin, which waits for the removal.
func (r *Root) Discard() {
	r.discarding.Go(func() {
		r.discard.Lock()
		defer r.discard.Unlock()
		_, img, done, err := r.places()
		if err == nil {
			err = newMover(nil).clear(img, "")
			done()
		}
		r.discarded = err
	})
}

// swapIn puts the files of the image in place.
func (r *Root) swapIn() error {
	if r.at == imageFiles {
		return nil
	}
	r.discarding.Wait()
	return r.moving(func(m *mover, own, img int) error {
		if r.at != imagePartly {
			if err := r.leave(m, own); err != nil {
				return err
			}
			r.at = imagePartly
		}
		if err := m.back(img, r.fd, ""); err != nil {
			return err
		}
		if err := likeTop(img, r.fd); err != nil {
			return err
		}
		r.at = imageFiles
		return nil
	})
}

// leave moves the container's own files to own. If that fails, it moves them back.
func (r *Root) leave(m *mover, own int) error {
	if r.at == ownPartly {
		if err := r.restore(m, own); err != nil {
			return err
		}
	}
	if err := likeTop(r.fd, own); err != nil {
		return err
	}
	if err := mark(own); err != nil {
		return err
	}
	r.at = ownPartly
	err := m.outMarked(r.fd, own)
	if err == nil {
		err = unmark(own)
	}
	if err == nil && r.vault != nil {
		err = r.vault.fill(own)
	}
	if err == nil {
		err = r.witness(m, own)
	}
	if err != nil {
		return errors.Join(err, r.restore(m, own))
	}
	return nil
}

func mark(own int) error {
	if err := unix.Mkdirat(own, leavingMark, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("build in place: mark moved files: %w", err)
	}
	return nil
}

func unmark(own int) error {
	if err := RemoveAt(own, leavingMark); err != nil {
		return fmt.Errorf("build in place: remove the mark of moved files: %w", err)
	}
	return nil
}

// swapOut puts the container's own files in place.
func (r *Root) swapOut() error {
	if r.at == ownFiles {
		return nil
	}
	return r.moving(func(m *mover, own, img int) error {
		if r.at == ownPartly {
			return r.restore(m, own)
		}
		if err := r.compare(m, own); err != nil {
			return errors.Join(err, r.restore(m, own))
		}
		if err := m.out(r.fd, img, ""); err != nil {
			return err
		}
		if err := likeTop(r.fd, img); err != nil {
			return err
		}
		if err := mark(own); err != nil {
			return err
		}
		r.at = ownPartly
		return r.restore(m, own)
	})
}

func (r *Root) restore(m *mover, own int) error {
	if err := m.restore(r.fd, own); err != nil {
		return err
	}
	r.at, r.before = ownFiles, nil
	if r.vault != nil {
		return r.vault.empty(r.fd)
	}
	return nil
}

// Guard starts a process that puts the container's own files back if this process is
// killed. Without it they stay hidden until the next build, and that build may lack its
// program. It returns an error if the process cannot be started. Close ends it.
func (r *Root) Guard() (err error) {
	protected := make([]string, len(r.protected))
	for i, p := range r.protected {
		protected[i] = "/" + p
	}
	r.guard, err = startGuard(protected, r.vault)
	return err
}

// Close puts the container's own files back, removes the files of the image and releases
// the lock. If the files cannot be put back, nothing is removed. In that case the guard
// tries again after this process has ended, and then every later build. Close returns a
// *ChangedError if a step changed the container's own files and no earlier call returned
// that error.
func (r *Root) Close() error {
	release, err := r.ownAsTheyAre()
	if err != nil {
		return errors.Join(err, r.release())
	}
	release()
	var changed error
	if r.changed != nil && !r.told.Load() {
		changed = r.changed
	}
	r.discarding.Wait()
	if r.discarded != nil {
		r.log.Debug("the files of steps were not removed at once", "error", r.discarded)
	}
	dir, err := openDir(r.fd, hidden)
	if err == nil {
		err = newMover(nil).clear(dir, "")
		_ = unix.Close(dir)
	}
	if err == nil {
		err = unix.Unlinkat(r.fd, hidden, unix.AT_REMOVEDIR)
	}
	if err != nil {
		err = fmt.Errorf("remove /%s: %w", hidden, err)
	}
	if r.guard != nil {
		err = errors.Join(err, r.guard.dismiss())
	}
	return errors.Join(changed, err, r.release())
}

func (r *Root) release() error {
	err := unix.Close(r.fd)
	if r.lock != nil {
		err = errors.Join(err, r.lock.Close())
	}
	if r.vault != nil {
		err = errors.Join(err, r.vault.file.Close())
	}
	return err
}

// Aside creates and opens a directory on the container's root file system. The sandbox
// moves files there that must not be in place while a step runs. The caller must close
// the file descriptor.
func Aside() (int, error) {
	const name = "/" + hidden + "/aside"
	if err := unix.Mkdir(name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// MountPoints returns the absolute paths of all mount points except the root directory.
// It returns an error if /proc/self/mountinfo cannot be read.
func MountPoints() ([]string, error) {
	list, err := mounts()
	if err != nil {
		return nil, err
	}
	var points []string
	for _, m := range list {
		if m.path != "/" {
			points = append(points, m.path)
		}
	}
	return points, nil
}
