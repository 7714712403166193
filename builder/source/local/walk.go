package local

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"
)

// walker implements fsutil.FS for a tree. It does not follow symbolic links, because
// fsutil follows them itself if necessary.
type walker struct{ t *Tree }

// FS returns the view as an fsutil.FS.
func (t *Tree) FS() fsutil.FS { return walker{t} }

// Open opens a file of the view by its path.
func (w walker) Open(p string) (io.ReadCloser, error) {
	e := w.t.at(path.Clean(p))
	if e == nil {
		return nil, &os.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return e.Open()
}

// Walk calls fn for target and all entries below it, in the order of their names. It does
// not call fn for the root itself.
func (w walker) Walk(ctx context.Context, target string, fn fs.WalkDirFunc) error {
	target = path.Clean(path.Join("/", target))[1:]
	e := w.t.at(target)
	if e == nil {
		err := fn(target, nil, &os.PathError{Op: "lstat", Path: target, Err: fs.ErrNotExist})
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
			return nil
		}
		return err
	}
	err := w.walk(ctx, e, fn)
	if errors.Is(err, fs.SkipDir) || errors.Is(err, fs.SkipAll) {
		return nil
	}
	return err
}

func (w walker) walk(ctx context.Context, e *Entry, fn fs.WalkDirFunc) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	entry := &fsutil.DirEntryInfo{Stat: e.stat()}
	if e != w.t.top {
		if err := vanishing(fn(e.rel(), entry, nil)); err != nil || !e.IsDir() {
			return skipDir(err, e.IsDir())
		}
	}
	children, err := e.Children()
	if err != nil {
		return skipDir(vanishing(fn(e.rel(), entry, err)), true)
	}
	for _, c := range children {
		if err := w.walk(ctx, c, fn); errors.Is(err, fs.SkipDir) {
			return nil // fn skips the rest of this directory
		} else if err != nil {
			return err
		}
	}
	return nil
}

// vanishing returns fs.SkipDir if err means that the file was removed during the walk.
func vanishing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return fs.SkipDir
	}
	return err
}

// skipDir ends a fs.SkipDir at the directory that it refers to.
func skipDir(err error, isDir bool) error {
	if isDir && errors.Is(err, fs.SkipDir) {
		return nil
	}
	return err
}
