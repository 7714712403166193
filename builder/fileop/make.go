package fileop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
)

// perm is the mask for the modes of mkdir and mkfile.
const perm = 0o777

// mkdir creates a directory. An existing directory keeps its owner, mode and time.
func (r *runner) mkdir(at *root, a *pb.FileActionMkDir) error {
	who, err := r.owner(a.GetOwner())
	if err != nil {
		return err
	}
	rel, err := at.resolve(path.Join("/", a.GetPath()))
	if err != nil {
		return err
	}
	mode := uint32(a.GetMode()) & perm
	with := attrs{owner: who, mode: &mode, mtime: stamp(a.GetTimestamp())}
	if !a.GetMakeParents() {
		err := at.mkdir(rel, with)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	made, err := at.mkdirAll(rel, with)
	if err != nil || len(made) == 0 {
		return err
	}
	// The parent of the first new directory is also part of the layer.
	return at.setTimesOf(append(made, path.Dir(made[0])), with.mtime)
}

// mkfile writes a file. An existing file or symbolic link at the path is replaced.
func (r *runner) mkfile(at *root, a *pb.FileActionMkFile) error {
	who, err := r.owner(a.GetOwner())
	if err != nil {
		return err
	}
	rel, err := at.resolve(path.Join("/", a.GetPath()))
	if err != nil {
		return err
	}
	if rel == "." {
		return &os.PathError{Op: "mkfile", Path: "/", Err: unix.EISDIR}
	}
	mode := uint32(a.GetMode()) & perm
	return at.in(rel, func(dir int, name string) error {
		if err := makeWay(dir, name, rel); err != nil {
			return err
		}
		f, err := createAt(dir, name, rel)
		if err != nil {
			return err
		}
		_, err = f.Write(a.GetData())
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("write /%s: %w", rel, err)
		}
		return at.apply(dir, name, rel, attrs{owner: who, mode: &mode, mtime: stamp(a.GetTimestamp())})
	})
}

// createAt creates a regular file. It returns an error if the name exists.
func createAt(dir int, name, rel string) (*os.File, error) {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &os.PathError{Op: "create", Path: "/" + rel, Err: err}
	}
	return os.NewFile(uintptr(fd), "/"+rel), nil
}

// symlink creates a symbolic link.
func (r *runner) symlink(at *root, a *pb.FileActionSymlink) error {
	who, err := r.owner(a.GetOwner())
	if err != nil {
		return err
	}
	rel, err := at.resolve(path.Join("/", a.GetNewpath()))
	if err != nil {
		return err
	}
	return at.in(rel, func(dir int, name string) error {
		if err := unix.Symlinkat(a.GetOldpath(), dir, name); err != nil {
			return &os.PathError{Op: "symlink", Path: "/" + rel, Err: err}
		}
		return at.apply(dir, name, rel, attrs{owner: who, mtime: stamp(a.GetTimestamp())})
	})
}

// rm removes files. It does not follow a symbolic link in the last component of the path.
func (r *runner) rm(ctx context.Context, at *root, a *pb.FileActionRm) error {
	names := []string{path.Join("/", a.GetPath())}
	if a.GetAllowWildcard() {
		var err error
		if names, err = r.matches(ctx, at, a.GetPath()); err != nil {
			return err
		}
	}
	for _, name := range names {
		if err := rmPath(at, name, a.GetAllowNotFound()); err != nil {
			return err
		}
	}
	return nil
}

func rmPath(at *root, name string, allowNotFound bool) error {
	rel, err := at.resolve(path.Dir(name))
	if err != nil {
		return err
	}
	rel = path.Join(rel, path.Base(name))
	if rel == "." || name == "/" {
		return fmt.Errorf("remove /: %w", unix.EBUSY)
	}
	if _, err := at.lstat(rel); err != nil {
		if allowNotFound && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return at.remove(rel)
}

func (r *runner) matches(ctx context.Context, at *root, pattern string) (names []string, err error) {
	t, err := local.Open(ctx, local.Options{Dir: at.dir, KeepOwners: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	picks, err := t.Pick(ctx, local.Selection{Path: pattern, Wildcard: true, ExcludePatterns: []string{"**"}, Optional: true})
	for _, p := range picks {
		names = append(names, p.Source)
	}
	return names, err
}
