package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"

	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local/beneath"
)

// Options describe a Tree.
type Options struct {
	// Dir is the directory; its own path may contain links.
	Dir string
	// FollowPaths, when not empty, narrows the tree to these patterns and to
	// what the links in them lead to.
	FollowPaths []string
	// ExcludePatterns are the patterns of an ignore file.
	ExcludePatterns []string
	// Index remembers hashes between builds; nil for none. Only trees that
	// stay where they are should use one: overlay mounts reuse device
	// numbers.
	Index *Index
	// KeepOwners keeps owners and the root's mode as they are on disk, as
	// is right for the root file system of an image. Otherwise everything is
	// owned by 0:0 and the root has mode 0755, as is right for files of
	// somebody's machine; extended attributes are then left out.
	KeepOwners bool
	// OwnerOf replaces the owner of an entry where owners are recorded
	// elsewhere than in the inode. dir and name are as for fstatat(2). It is
	// asked only with KeepOwners and may be called concurrently.
	OwnerOf func(dir int, name string, st *unix.Stat_t) (uid, gid uint32, err error)
}

// Tree is a view of a directory. It is safe for concurrent use.
type Tree struct {
	opts    Options
	root    *os.File
	top     *Entry
	narrow  bool
	changed atomic.Pointer[string]
}

// Open opens a view of opts.Dir. The patterns are applied at once, directories
// that no pattern speaks about are listed when they are first looked at. The
// caller closes the tree.
func Open(ctx context.Context, opts Options) (*Tree, error) {
	root, err := beneath.OpenRoot(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("open source directory: %w", err)
	}
	t := &Tree{opts: opts, root: root}
	if err := t.start(ctx); err != nil {
		_ = root.Close()
		return nil, err
	}
	return t, nil
}

func (t *Tree) start(ctx context.Context) error {
	var st unix.Stat_t
	if err := unix.Fstat(t.fd(), &st); err != nil {
		return fmt.Errorf("stat source directory %s: %w", t.opts.Dir, err)
	}
	t.top = &Entry{tree: t, rel: ".", st: st}
	if !t.opts.KeepOwners {
		t.top.st.Mode = unix.S_IFDIR | 0o755
		t.top.st.Uid, t.top.st.Gid = 0, 0
	} else if t.opts.OwnerOf != nil {
		uid, gid, err := t.opts.OwnerOf(t.fd(), ".", &st)
		if err != nil {
			return fmt.Errorf("read owner of %s: %w", t.opts.Dir, err)
		}
		t.top.st.Uid, t.top.st.Gid = uid, gid
	}
	if len(t.opts.FollowPaths) == 0 && len(t.opts.ExcludePatterns) == 0 {
		return nil
	}
	return t.applyPatterns(ctx)
}

// applyPatterns marks the entries that are part of the view.
func (t *Tree) applyPatterns(ctx context.Context) error {
	view, err := fsutil.NewFilterFS(walker{t}, &fsutil.FilterOpt{
		FollowPaths: t.opts.FollowPaths, ExcludePatterns: t.opts.ExcludePatterns,
	})
	if err != nil {
		return fmt.Errorf("select files of the source directory: %w", err)
	}
	var kept []*Entry
	err = view.Walk(ctx, ".", func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e := t.at(p); e != nil {
			kept = append(kept, e)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("list source directory %s: %w", t.opts.Dir, err)
	}
	for _, e := range kept {
		e.kept = true
	}
	t.narrow = true
	return nil
}

// Close closes the directory. Entries can no longer be opened.
func (t *Tree) Close() error { return t.root.Close() }

// Root returns the entry of the directory itself.
func (t *Tree) Root() *Entry { return t.top }

// Changed returns a file that was seen to differ from what its directory
// listing or its digest said, "" when there is none. The result of an
// operation on such a tree must not be remembered under the tree's digest.
func (t *Tree) Changed() string {
	if p := t.changed.Load(); p != nil {
		return *p
	}
	return ""
}

func (t *Tree) setChanged(rel string) { t.changed.CompareAndSwap(nil, &rel) }

func (t *Tree) fd() int { return int(t.root.Fd()) }

// at returns the entry at a clean relative path, nil if there is none. Links
// are not followed.
func (t *Tree) at(rel string) *Entry {
	e := t.top
	for c := range strings.SplitSeq(rel, "/") {
		if c == "" || c == "." {
			continue
		}
		if e = e.child(c); e == nil {
			return nil
		}
	}
	return e
}

// Lookup returns the entry that name means inside the tree, links followed as
// if the tree were a root file system; with follow false a link that is the
// last component is returned itself. What does not exist is a NotFoundError.
func (t *Tree) Lookup(name string, follow bool) (*Entry, error) {
	if strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") {
		follow = true
	}
	l := lookup{at: t.top, rest: split(name)}
	for len(l.rest) > 0 {
		if err := l.step(follow); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, &NotFoundError{Path: name}
			}
			return nil, &os.PathError{Op: "lstat", Path: name, Err: err}
		}
	}
	return l.at, nil
}

// lookup walks entries, following links.
type lookup struct {
	at    *Entry
	rest  []string
	links int
}

func (l *lookup) step(follow bool) error {
	c := l.rest[0]
	l.rest = l.rest[1:]
	if c == ".." {
		if l.at.parent != nil {
			l.at = l.at.parent
		}
		return nil
	}
	if !l.at.IsDir() {
		return unix.ENOENT
	}
	if _, err := l.at.list(); err != nil {
		return err
	}
	next := l.at.child(c)
	if next == nil {
		return unix.ENOENT
	}
	if next.kind() != unix.S_IFLNK || (!follow && len(l.rest) == 0) {
		l.at = next
		return nil
	}
	if l.links++; l.links > maxLinks {
		return unix.ELOOP
	}
	if strings.HasPrefix(next.link, "/") {
		l.at = l.at.tree.top
	}
	l.rest = append(split(next.link), l.rest...)
	return nil
}

// maxLinks bounds the links followed for one path.
const maxLinks = 255

func split(name string) []string {
	var parts []string
	for c := range strings.SplitSeq(name, "/") {
		if c != "" && c != "." {
			parts = append(parts, c)
		}
	}
	return parts
}

// NotFoundError tells that the tree has nothing at Path.
type NotFoundError struct{ Path string }

// Error gives the wording users know from docker.
func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// Unwrap makes the error an fs.ErrNotExist.
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// ErrTooLarge tells that a file is larger than the reader allows.
var ErrTooLarge = errors.New("file too large")

// ReadFile reads the regular file that name means inside the tree. More than
// limit bytes are refused with ErrTooLarge.
func (t *Tree) ReadFile(name string, limit int64) ([]byte, error) {
	e, err := t.Lookup(name, true)
	if err != nil {
		return nil, err
	}
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %s: %w: more than %d bytes", name, ErrTooLarge, limit)
	}
	return data, nil
}
