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

// Options are the options of a Tree.
type Options struct {
	// Dir is the directory. Its own path may contain symbolic links.
	Dir string
	// FollowPaths limits the tree to files that match these patterns, and to the targets
	// of symbolic links among them. If it is empty, the tree is not limited.
	FollowPaths []string
	// ExcludePatterns are the patterns of an ignore file.
	ExcludePatterns []string
	// Index caches hashes between builds. It may be nil. It should only be used for
	// directories that stay in the same place, because overlay mounts reuse device
	// numbers.
	Index *Index
	// KeepOwners keeps the owners and xattrs, and the mode of the root. It must be set
	// for the root file system of an image. Otherwise, as for the files of a user, all
	// files are owned by 0:0, the root has mode 0755, and xattrs are ignored.
	KeepOwners bool
	// OwnerOf returns the owner of an entry if owners are not recorded in the inode. dir
	// and name are used as for fstatat(2). It is only called if KeepOwners is set, and
	// may be called concurrently.
	OwnerOf func(dir int, name string, st *unix.Stat_t) (uid, gid uint32, err error)
	// Whole reads all directories at once and keeps their listings in memory. It must be
	// set if the directory is changed by copies from itself.
	Whole bool
}

// Tree is a view of a directory. It is safe for concurrent use.
type Tree struct {
	opts    Options
	root    *os.File
	top     *Entry
	view    *patterns // nil shows all files
	changed atomic.Pointer[string]

	maxKept int64
	kept    atomic.Int64 // number of entries in memory

	// listings are the hashes of the listings that are not in memory.
	mu       sync.Mutex
	seed     maphash.Seed
	listings map[inode]uint64
}

// Open opens a view of opts.Dir. Directories are listed on first use. The caller must
// close the tree.
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
		// The links are resolved in the whole directory, including excluded files.
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

// Close closes the directory. After that, entries cannot be opened.
func (t *Tree) Close() error { return t.root.Close() }

// Root returns the entry of the directory itself.
func (t *Tree) Root() *Entry { return t.top }

// Changed returns a file that differs from its listing or from its digest, or "" if there
// is none. The result of an operation on a changed tree must not be cached under the
// tree's digest.
func (t *Tree) Changed() string {
	if p := t.changed.Load(); p != nil {
		return *p
	}
	return ""
}

func (t *Tree) setChanged(rel string) { t.changed.CompareAndSwap(nil, &rel) }

func (t *Tree) fd() int { return int(t.root.Fd()) }

// at returns the entry at a clean relative path, or nil if there is none. It does not
// follow symbolic links.
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

// Lookup returns the entry of the path name inside the tree. Symbolic links are followed
// as if the tree were a root file system. If follow is false, a link in the last
// component is returned itself, unless name ends in "/" or "/.". Lookup returns a
// *NotFoundError if the path does not exist.
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

// lookup is the state of a Lookup.
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

// maxLinks limits the symbolic links that are followed for one path.
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

// NotFoundError is returned if the tree has no file at Path.
type NotFoundError struct{ Path string }

// Error returns the message of docker, because users know it.
func (e *NotFoundError) Error() string { return fmt.Sprintf("%q: not found", e.Path) }

// Unwrap returns fs.ErrNotExist.
func (e *NotFoundError) Unwrap() error { return fs.ErrNotExist }

// ErrTooLarge is returned if a file is larger than the limit of ReadFile.
var ErrTooLarge = errors.New("file too large")

// ReadFile returns the content of the regular file name inside the tree. It returns
// ErrTooLarge if the file is larger than limit bytes.
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
