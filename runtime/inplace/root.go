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

// hidden is where, below the root directory, the files are that are not in
// place: own has the container's, image those of the steps.
const (
	hidden   = ".shale-inplace"
	ownName  = "own"
	imgName  = "image"
	newName  = "new"
	lockName = "lock"
)

// Root is the root directory of the container. The container's own files are in
// it unless a step is running; one process at a time has it.
type Root struct {
	// dir is where fd was opened, as mountinfo has it.
	dir       string
	fd        int
	lock      *os.File
	protected []string
	log       *slog.Logger
	guard     *guard
	// vault, if not nil, keeps files with logins from steps.
	vault *vault

	mu sync.RWMutex
	// at says which files are in place.
	at state
	// before is what the container's own files were when they made way for the
	// image's, but for those in open. changed is set when a step changed them, told
	// when a caller knows.
	before  *imprints
	open    inodes
	changed *ChangedError
	told    atomic.Bool
	// discarding runs after Discard, one at a time; it leaves its error behind.
	discarding sync.WaitGroup
	discard    sync.Mutex
	discarded  error
}

// state is which files are in place: the container's own, or the image's, or, when
// putting them there failed, some of either.
type state int

const (
	ownFiles state = iota
	ownPartly
	imagePartly
	imageFiles
)

// ErrReadOnly tells that the container's root directory cannot be written to.
var ErrReadOnly = errors.New("the root file system of this container is read-only: building in place needs a writable one (readOnlyRootFilesystem: false, no --read-only)")

// OpenRoot takes over the root directory. protected are absolute paths that
// stay in place whatever is there, as the store and the build context. What a
// killed process left is put right first.
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

// claim makes the hidden directory and locks it.
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

// recover puts right what a killed process left: with some of the container's
// own files out of place, what is in theirs is the image's.
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

// restore removes what is in place and moves own back. Where the mark is, what
// is in place may be the container's own already, and nothing is removed. All
// becomes as it was, but that directories that were being moved when a build was
// killed have the time of that.
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

// likeTop gives the open directory dst the owner, mode and attributes of src:
// one is the root directory, whose times nobody keeps, the other stands for it.
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

// leavingMark is a directory that stands among the container's own files while
// some of them may still, or again, be in place. In it their directories get their
// twins.
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

// moving calls move with the open places of the container's own files and of the
// image's, and a mover that spares what is neither's.
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

// Spared lists what is neither the container's nor the image's to move: mount
// points and what is protected, without leading slash.
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

// Protected tells whether path, without leading slash, was given to OpenRoot.
func (r *Root) Protected() []string { return r.protected }

// Dir is the directory.
func (r *Root) Dir() string { return r.dir }

// Nursery is a directory of the container's root file system that is no part of
// what a step sees as its files: what is made there can be moved to Dir.
func (r *Root) Nursery() string { return filepath.Join(r.dir, hidden, newName) }

// Begin puts the image's files in place, for a step. No other step, and nobody
// who needs the container's own files, goes on before End.
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

// End is the end of what Begin began. The image's files stay in place until
// somebody needs the others.
func (r *Root) End() { r.mu.Unlock() }

// Own puts the container's own files in place and keeps them there until
// release is called. It returns a ChangedError when a step changed them, and so
// does everything after that but Close, to which the container's files matter most.
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

// unchanged returns the ChangedError that there is, while mu is held.
func (r *Root) unchanged() error {
	if r.changed == nil {
		return nil
	}
	r.told.Store(true)
	return r.changed
}

// ownAsTheyAre is Own whatever a step did to the files.
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

// Leave says, between Begin and End, that no step follows yet: it puts the
// container's own files in place and does what Discard does.
func (r *Root) Leave() error {
	if err := r.swapOut(); err != nil {
		return err
	}
	r.Discard()
	return r.unchanged()
}

// Discard says that no step follows yet. While the container's own files are
// in place, which the caller sees to until Close or the next step, the image's are
// removed beside what else is done.
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

// swapIn puts the image's files in place.
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

// leave moves the container's own files to own; when that fails, back.
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
		return fmt.Errorf("build in place: mark what is moved: %w", err)
	}
	return nil
}

func unmark(own int) error {
	if err := RemoveAt(own, leavingMark); err != nil {
		return fmt.Errorf("build in place: remove the mark of what is moved: %w", err)
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

// Guard starts a process that puts the container's own files back should this one
// be killed.
func (r *Root) Guard() (err error) {
	protected := make([]string, len(r.protected))
	for i, p := range r.protected {
		protected[i] = "/" + p
	}
	r.guard, err = startGuard(protected, r.vault)
	return err
}

// Close puts the container's own files back and removes the image's. Where the
// first cannot be done nothing is removed: the guard tries again once this process
// has ended, and then every other build.
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

// Aside opens a directory for what has to make way in the root file system
// while a step runs, on the same file system. The caller closes it.
func Aside() (int, error) {
	const name = "/" + hidden + "/aside"
	if err := unix.Mkdir(name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	return unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// MountPoints lists, as absolute paths, where something is mounted but the root
// directory.
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
