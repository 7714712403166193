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

// Options selects the store. For a zero value, the value of storage.conf applies, and
// then the default of containers/storage.
type Options struct {
	// GraphRoot and RunRoot are the values of --root and --runroot.
	GraphRoot, RunRoot string
	// Recorded reports that only one id is mapped, so that the owners of files are
	// recorded beside the files.
	Recorded bool
	// NoMounts opens the store without mount(2), which may be forbidden. It also allows
	// file systems that no overlay can use. The caller must then show and make layers
	// natively, that is, without overlay, see package overlay/plain.
	NoMounts bool
	// Logger may be nil.
	Logger *slog.Logger
}

// Store is an open store. It is safe for concurrent use. Several processes may have the
// same store open.
type Store struct {
	lib    cstorage.Store
	driver graphdriver.Driver
	// graphRoot and runRoot are the directories of the store. The library may use other
	// paths, see withoutMounts.
	graphRoot, runRoot string
	logger             *slog.Logger
	// recorded is Options.Recorded. beside is the result of Store.OwnersBeside.
	recorded, beside bool
	// warnOnce is for warnLost.
	warnOnce sync.Once

	// stagingBase is the directory of staging directories.
	prepareOnce sync.Once
	stagingBase string
	prepareErr  error
	sweepOnce   sync.Once

	// layers is the directory of layers, nil if it cannot be opened. missing is the
	// directory of a layer in the making that another program has removed.
	layers  *os.File
	missing atomic.Pointer[string]
	reaping sync.WaitGroup
	// full describes the first failure of a layer for lack of space.
	full atomic.Pointer[FullError]
	// recordedOne is the result of Recorded.
	recordedOne atomic.Bool
	// reserveOnce is for makeReserve.
	reserveOnce sync.Once

	holds holds
	pins  pins
	// onFound is the argument of OnFound.
	onFound atomic.Pointer[func(layer string)]
	// interim has the IDs of the images with an interim name. The functions end the
	// announcements of these images.
	interimMu sync.Mutex
	interim   map[string]func() error
}

// Reexec runs a helper if this process is one: containers/storage starts its helpers by
// executing this program under another name. Reexec reports whether it ran a helper; main
// must then return at once. main must call Reexec before anything else.
func Reexec() bool { return reexec.Init() }

// Open opens the store that opts selects, see Location.Open.
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
		logger.Warn("the unfinished change of a killed process could not be repaired", "error", err)
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

// Close ends all holds, pins and interim names, and waits for the background work of the
// store. Other parts of the process may continue to use the Store.
func (s *Store) Close() error {
	err := errors.Join(s.endInterim(), s.unpin())
	s.reaping.Wait()
	return errors.Join(err, s.letGo())
}

// GraphRoot returns the directory of layers and images.
func (s *Store) GraphRoot() string { return s.graphRoot }

// RunRoot returns the directory of state that is lost at a reboot.
func (s *Store) RunRoot() string { return s.runRoot }

// Library returns the store as an interface of containers/storage, for package registry.
func (s *Store) Library() cstorage.Store { return library{Store: s.lib, store: s} }

// StateDir creates and returns a directory for shale's own state beside the layers. It is
// accessible only to the owner of the store. name must be a local relative path.
func (s *Store) StateDir(name string) (string, error) {
	return makeStateDir(s.graphRoot, name, s.spread)
}

// makeStateDir creates and returns a state directory. It calls made if the directory did
// not exist.
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

// UserXattr reports whether overlayfs keeps its marks in user.overlay.* attributes, as it
// does in a user namespace. As root, it keeps them in trusted.overlay.* attributes.
func (s *Store) UserXattr() bool { return unshare.IsRootless() }

// Sync writes the file system of the graph root to disk (syncfs(2)). If the graph root is
// on an overlay, Sync does nothing: it is then in a container's own root file system, and
// a crash of the machine also ends the container.
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

// tempFile creates a file without a name on the file system of the layers. The kernel
// removes the file when the process ends for any reason.
func (s *Store) tempFile() (*os.File, error) {
	dir, err := s.StateDir("tmp")
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "unnamed")), nil
	}
	// Not every file system supports O_TMPFILE.
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("create temporary file: %w", err), f.Close())
	}
	return f, nil
}
