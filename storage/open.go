package storage

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	cstorage "go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/reexec"
	"go.podman.io/storage/pkg/unshare"
	"golang.org/x/sys/unix"
)

const driverName = "overlay"

// Options selects the store. Zero values take what containers/storage takes:
// storage.conf, then its defaults.
type Options struct {
	// GraphRoot and RunRoot are what --root and --runroot name.
	GraphRoot, RunRoot string
	// Recorded tells that there is one id only: the owners of files are
	// recorded beside them.
	Recorded bool
	// NoMounts opens the store without mount(2), which may be forbidden, and on
	// file systems that no overlay can lie on. Layers are to be read and made
	// in their directories then, see package overlay/plain.
	NoMounts bool
	// Logger may be nil.
	Logger *slog.Logger
}

// Store is an open store. It is safe for concurrent use, and so are several
// processes with the same store open.
type Store struct {
	lib    cstorage.Store
	driver graphdriver.Driver
	// graphRoot and runRoot are those of the store; the library may have
	// others, see withoutMounts.
	graphRoot, runRoot string
	logger             *slog.Logger
	// recorded is Options.Recorded, beside that of Store.OwnersBeside.
	recorded, beside bool
	// warnOnce is for warnLost.
	warnOnce sync.Once

	// stagingBase is the directory of staging directories.
	prepareOnce sync.Once
	stagingBase string
	prepareErr  error
	sweepOnce   sync.Once

	// layers is the directory of layers, nil if it cannot be opened, and missing
	// a directory that was removed while a layer was made in it.
	layers  *os.File
	missing atomic.Pointer[string]
	reaping sync.WaitGroup
	// full is how the first failure of a layer for want of space was found.
	full atomic.Pointer[FullError]
	// recordedOne is for Recorded.
	recordedOne atomic.Bool
	// reserveOnce is for makeReserve.
	reserveOnce sync.Once

	holds holds
	pins  pins
	// onFound is what OnFound was given.
	onFound atomic.Pointer[func(layer string)]
	// interim are the images that have an interim name, and what ends the
	// announcement of each.
	interimMu sync.Mutex
	interim   map[string]func() error
}

// Reexec runs one of the helpers that containers/storage starts by executing
// this program under another name, and tells whether it did: then main returns
// at once. It comes first in main.
func Reexec() bool { return reexec.Init() }

// Open opens the store that opts choose, see Location.Open.
func Open(opts Options) (*Store, error) {
	l, err := Locate(opts)
	if err != nil {
		return nil, err
	}
	return open(l, opts)
}

func open(l *Location, opts Options) (*Store, error) {
	logger := opts.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	so := l.so
	if opts.NoMounts {
		if err := l.withoutMounts(&so); err != nil {
			return nil, openError(l.so.GraphRoot, err)
		}
	} else {
		ownMount(&so, logger)
	}
	if err := mend(l.so.GraphRoot); err != nil {
		logger.Warn("what a killed process began could not be put right", "error", err)
	}
	lib, err := cstorage.GetStore(so)
	if err != nil {
		return nil, openError(l.so.GraphRoot, err)
	}
	driver, err := lib.GraphDriver()
	if err != nil {
		return nil, openError(l.so.GraphRoot, err)
	}
	if driver.String() != driverName {
		return nil, fmt.Errorf("open store %s: %w but %s: set driver = \"overlay\" in storage.conf, or use another --root",
			l.so.GraphRoot, ErrDriver, driver.String())
	}
	s := &Store{
		lib: lib, driver: driver, graphRoot: l.so.GraphRoot, runRoot: l.so.RunRoot, logger: logger, recorded: opts.Recorded,
	}
	if s.beside, err = l.OwnersBeside(); err != nil {
		return nil, err
	}
	if err := s.checkOwnership(); err != nil {
		return nil, err
	}
	s.settle()
	s.holdLayers()
	return s, nil
}

func openError(root string, err error) error {
	if errors.Is(err, graphdriver.ErrPrerequisites) || errors.Is(err, graphdriver.ErrNotSupported) || errors.Is(err, graphdriver.ErrIncompatibleFS) {
		return fmt.Errorf("open store %s: %w: %w", root, ErrDriver, err)
	}
	return fmt.Errorf("open store %s: %w", root, err)
}

// Close gives up what Hold and Pin keep, and waits for what the store does in the
// background. The store itself stays usable for others in the process.
func (s *Store) Close() error {
	err := errors.Join(s.endInterim(), s.unpin())
	s.reaping.Wait()
	return errors.Join(err, s.letGo())
}

// GraphRoot is the directory of layers and images.
func (s *Store) GraphRoot() string { return s.graphRoot }

// RunRoot is the directory of state that a reboot loses.
func (s *Store) RunRoot() string { return s.runRoot }

// Library is the store as containers/storage has it, for package registry.
func (s *Store) Library() cstorage.Store { return library{Store: s.lib, store: s} }

// StateDir returns a directory for shale's own state beside the layers, private
// to the owner of the store, and creates it.
func (s *Store) StateDir(name string) (string, error) {
	return makeStateDir(s.graphRoot, name, s.spread)
}

// makeStateDir calls made with the directory if it did not exist.
func makeStateDir(graphRoot, name string, made func(dir string)) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("state directory %q: name must be relative", name)
	}
	dir := filepath.Join(graphRoot, stateDir, name)
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return dir, nil
	}
	if err != nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return "", fmt.Errorf("create state directory: %w", err)
	}
	made(dir)
	return dir, nil
}

// UserXattr tells where overlayfs keeps its marks: in user.overlay.* attributes
// (in a user namespace) or in trusted.overlay.* ones (as root).
func (s *Store) UserXattr() bool { return unshare.IsRootless() }

// Sync writes the file system of the graph root to disk: syncfs(2). A graph root on
// an overlay is in a container's own root file system, which a crash of the machine
// ends together with the container: nothing is written there.
func (s *Store) Sync() error {
	fd, err := unix.Open(s.GraphRoot(), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", s.GraphRoot(), err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", s.GraphRoot(), err)
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return nil
	}
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("sync file system of %s: %w", s.GraphRoot(), err)
	}
	return nil
}

// tempFile makes a file without a name, so that it goes away however the
// process ends, on the file system of the layers.
func (s *Store) tempFile() (*os.File, error) {
	dir, err := s.StateDir("tmp")
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "unnamed")), nil
	}
	// Not every file system has O_TMPFILE.
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("create temporary file: %w", err), f.Close())
	}
	return f, nil
}
