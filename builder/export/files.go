package export

import (
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
	"github.com/moby/buildkit/util/staticfs"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// Trees are the file systems of a build.
type Trees struct {
	Build Build
	// Roots are the root directories of the results, in the order of the build's
	// platforms. They are only read.
	Roots []string
	// Owners returns the owners of files that belong to root only because no other ids
	// are mapped. It is nil if each file has its real owner.
	Owners Owners
}

// Files writes the file systems into the directory dir, which is created if it does not
// exist. Other files in dir are kept if the result has no file of that name, but removed
// if opts.Delete is set. As with docker, all files belong to the caller, because other
// owners require privileges.
func (t Trees) Files(ctx context.Context, dir string, opts FilesOptions) error {
	fs, err := t.fs(ctx, opts, opts.split(t.Build))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make output directory: %w", err)
	}
	osRoot, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open output directory: %w", err)
	}
	root := fsutil.NewRoot(osRoot)
	defer root.Close() //nolint:errcheck // a directory handle
	var setIDs setIDs
	own := func(path string, st *types.Stat) bool {
		st.Uid, st.Gid = uint32(os.Getuid()), uint32(os.Getgid())
		setIDs.note(path, st)
		return true
	}
	receive := fsutil.ReceiveOpt{Merge: true, Filter: own}
	if opts.Delete {
		receive = fsutil.ReceiveOpt{Filter: own, Differ: fsutil.DiffNone}
	}
	if err := transfer(ctx, fs, func(ctx context.Context, s fsutil.Stream) error {
		return fsutil.ReceiveRoot(ctx, s, root, receive)
	}); err != nil {
		return fmt.Errorf("write files to %s: %w", dir, explainDevice(err))
	}
	if err := setIDs.restore(osRoot); err != nil {
		return fmt.Errorf("write files to %s: %w", dir, err)
	}
	return nil
}

// explainDevice adds advice to an error about a device: only root in the initial user
// namespace may create devices (mknod(2)).
func explainDevice(err error) error {
	if errors.Is(err, unix.EPERM) && strings.Contains(err.Error(), "create device") {
		return fmt.Errorf("%w: only root can make devices, --output type=tar takes them along", err)
	}
	return err
}

// setIDs are the modes of files with set-id bits. fsutil sets the mode before it writes
// the content, and the kernel then clears these bits (write(2)).
type setIDs struct {
	mu    sync.Mutex
	modes map[string]iofs.FileMode
}

func (s *setIDs) note(path string, st *types.Stat) {
	mode := iofs.FileMode(st.Mode)
	if !mode.IsRegular() || mode&(iofs.ModeSetuid|iofs.ModeSetgid) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.modes == nil {
		s.modes = map[string]iofs.FileMode{}
	}
	s.modes[path] = mode
}

// restore sets the modes again. It skips names that are not regular files any more.
func (s *setIDs) restore(root *os.Root) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, mode := range s.modes {
		name = strings.TrimPrefix(filepath.Clean("/"+name), "/")
		info, err := root.Lstat(name)
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		if err := root.Chmod(name, mode); err != nil {
			return err
		}
	}
	return nil
}

// Tar writes the file systems as one tar file. The files keep their owners.
func (t Trees) Tar(ctx context.Context, w io.Writer, opts FilesOptions) error {
	fs, err := t.fs(ctx, opts, t.Build.Multi)
	if err != nil {
		return err
	}
	if err := fsutil.WriteTar(ctx, fs, w); err != nil {
		return fmt.Errorf("write tar: %w", err)
	}
	return nil
}

// fs joins the file systems into one.
func (t Trees) fs(ctx context.Context, opts FilesOptions, split bool) (fsutil.FS, error) {
	var dirs []fsutil.Dir
	var merged fsutil.FS
	seen := map[string]string{}
	for i, p := range t.Build.Platforms {
		epoch := opts.Epoch.of(p)
		root, err := sourceDir(t.Roots[i], opts.Source)
		if err != nil {
			return nil, err
		}
		fs, err := platformFS(root, epoch, t.Owners)
		if err != nil {
			return nil, err
		}
		if split {
			st := &types.Stat{Mode: uint32(os.ModeDir | 0o755), Path: directoryName(p.ID)}
			if epoch != nil {
				st.ModTime = epoch.UnixNano()
			}
			dirs = append(dirs, fsutil.Dir{FS: fs, Stat: st})
			continue
		}
		if err := checkDouble(ctx, fs, p.ID, seen, len(t.Build.Platforms)); err != nil {
			return nil, err
		}
		if merged == nil {
			merged = fs
		} else {
			merged = staticfs.NewMergeFS(merged, knowingFS{fs, root})
		}
	}
	if !split {
		return merged, nil
	}
	fs, err := fsutil.SubDirFS(dirs)
	if err != nil {
		return nil, fmt.Errorf("join the results of all platforms: %w", err)
	}
	return fs, nil
}

// sourceDir returns the directory of a result that is to be written.
func sourceDir(root, source string) (string, error) {
	if source == "" {
		return root, nil
	}
	below, err := securejoin.SecureJoin(root, source)
	if err != nil {
		return "", fmt.Errorf("src=%s: %w", source, err)
	}
	info, err := os.Lstat(below)
	switch {
	case errors.Is(err, iofs.ErrNotExist):
		return "", fmt.Errorf("src=%s: %w", source, unix.ENOENT)
	case err != nil:
		return "", fmt.Errorf("src=%s: %w", source, err)
	case !info.IsDir():
		return "", fmt.Errorf("src=%s: %w", source, unix.ENOTDIR)
	}
	return below, nil
}

// platformFS returns the files of a directory of a result. If epoch is not nil, it is the
// time of each file.
func platformFS(root string, epoch *time.Time, owners Owners) (fsutil.FS, error) {
	fs, err := fsutil.NewFS(root)
	if err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	if owners != nil {
		if fs, err = withOwners(fs, root, owners); err != nil {
			return nil, err
		}
	}
	if epoch == nil {
		return fs, nil
	}
	fs, err = fsutil.NewFilterFS(fs, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
		st.ModTime = epoch.UnixNano()
		return fsutil.MapResultKeep
	}})
	if err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	return fs, nil
}

// knowingFS returns an error from Open if it does not have the file, so that the other
// file system of a merge is tried. fsutil returns that error only from Read.
type knowingFS struct {
	fsutil.FS
	root string
}

// Open implements fsutil.FS.
func (fs knowingFS) Open(path string) (io.ReadCloser, error) {
	if _, err := os.Lstat(filepath.Join(fs.root, path)); err != nil {
		return nil, err
	}
	return fs.FS.Open(path)
}

// checkDouble returns an error if two platforms have a file with the same name.
func checkDouble(ctx context.Context, fs fsutil.FS, id string, seen map[string]string, platforms int) error {
	if platforms < 2 {
		return nil
	}
	return fs.Walk(ctx, "", func(path string, entry iofs.DirEntry, err error) error {
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
		if entry == nil || entry.IsDir() {
			return nil
		}
		if other, ok := seen[path]; ok {
			return fmt.Errorf("cannot overwrite %s from %s with %s when split option is disabled", path, other, id)
		}
		seen[path] = id
		return nil
	})
}

// directoryName returns a platform as a single path element.
func directoryName(id string) string {
	name := strings.NewReplacer("/", "_", `\`, "_", ":", "_").Replace(id)
	if name == "." || name == ".." || !filepath.IsLocal(name) {
		return strings.Repeat("_", len(name))
	}
	return name
}
