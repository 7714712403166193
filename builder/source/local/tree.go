package local

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"
	"sync"
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
	// Whole reads all directories at once and keeps what they showed: for
	// one that is changed by what is read from it.
	Whole bool
}

// Tree is a view of a directory. It is safe for concurrent use.
type Tree struct {
	opts    Options
	root    *os.File
	top     *Entry
	view    *patterns // nil shows everything
	changed atomic.Pointer[string]

	maxKept int64
	kept    atomic.Int64 // entries

	// listings are hashes of the listings that were not kept.
	mu       sync.Mutex
	seed     maphash.Seed
	listings map[inode]uint64
}

// Open opens a view of opts.Dir. Directories are listed when they are first
// looked at. The caller closes the tree.
func Open(ctx context.Context, opts Options) (*Tree, error) {
	keep := int64(maxKept)
	if opts.Whole {
		keep = math.MaxInt64
	}
	return openTree(ctx, opts, keep)
}

func openTree(ctx context.Context, opts Options, maxKept int64) (*Tree, error) {
	root, err := beneath.OpenRoot(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("open source directory: %w", err)
	}
	t := &Tree{opts: opts, root: root, maxKept: maxKept, seed: maphash.MakeSeed(), listings: map[inode]uint64{}}
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
	t.top = &Entry{tree: t, name: ".", st: st, dir: &directory{}, kept: true}
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
	return t.narrow(ctx)
}

// narrow applies the patterns to the view.
func (t *Tree) narrow(ctx context.Context) error {
	var follow []string
	if len(t.opts.FollowPaths) > 0 {
		var err error
		// The links are looked for in everything, what is excluded included.
		if follow, err = fsutil.FollowLinks(walker{t}, t.opts.FollowPaths); err != nil {
			return fmt.Errorf("select files of the source directory: %w", err)
		}
	}
	view, err := newPatterns(follow, t.opts.ExcludePatterns)
	if err != nil {
		return fmt.Errorf("select files of the source directory: %w", err)
	}
	t.view = view
	if t.opts.Whole {
		return listAll(ctx, t.top)
	}
	return ctx.Err()
}

func listAll(ctx context.Context, e *Entry) error {
	children, err := e.Children()
	if err != nil {
		return err
	}
	for _, c := range children {
		if c.IsDir() {
			if err := listAll(ctx, c); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
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
	children, err := l.at.Children()
	if err != nil {
		return err
	}
	next := find(children, c)
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
