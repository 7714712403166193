package diff

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

var (
	// ErrReservedName is returned for a file name that begins with ".wh.". In a layer
	// such a name means that another file is deleted.
	ErrReservedName = errors.New(`names beginning with ".wh." cannot be kept in an image layer`)
	// ErrNotSelfContained is returned for an upper directory that refers to its lower
	// directories (redirect_dir or metacopy of overlayfs). Its own files are then not the
	// whole change.
	ErrNotSelfContained = errors.New("the upper directory refers to its lower layers (redirect_dir or metacopy)")
	// ErrPathTooLong is returned for a path that is longer than 16 KiB. This is four
	// times the limit of system calls.
	ErrPathTooLong = errors.New("the path is longer than 16 KiB")
	// ErrChanged is returned if a file changes while it is read.
	ErrChanged = errors.New("changed while being packed")
)

// readers is the number of goroutines that open and read files ahead of the writer. Two
// keep one hash busy; more compete with it for the processor.
const readers = 2

// Options are the options of Pack.
type Options struct {
	// Upper is the directory to pack. It must not be written to meanwhile.
	Upper string
	// Lower are the lower directories of its mount, topmost first.
	Lower []string
	// UserXattr is set if the marks of overlayfs are in user.overlay.*, not
	// trusted.overlay.*.
	UserXattr bool
	// NamedMarks accepts an empty file .wh.NAME in Upper as the whiteout of NAME.
	// Packages overlay/plain and containers/storage write such files if no device can be
	// created. Without NamedMarks, Pack returns ErrReservedName for such a name.
	NamedMarks bool
	// Owners, if not nil, returns the recorded owners of files. It is nil if files really
	// have their owners. It must be safe for concurrent use.
	Owners Owners
	// Output, if not nil, receives the archive.
	Output io.Writer
}

// Owners returns recorded owners. With only one mapped id, all files belong to that id,
// and their owners in the image are recorded elsewhere. Its methods change st from the
// result of stat(2) to the recorded values: the owner and, for an empty file that
// represents a device, the type and device number. Package runtime/recorded implements
// it.
type Owners interface {
	// Value applies value, the content of the extended attribute
	// user.containers.override_stat of the file.
	Value(value []byte, st *unix.Stat_t) error
	// Special applies the record of a file that cannot have the attribute. The file is
	// name in the open directory dir, or the open file dir itself if name is "". A
	// symbolic link is not followed.
	Special(dir int, name string, st *unix.Stat_t) error
	// Beside reports whether Special must be called for all files. Attributes are then
	// not used.
	Beside() bool
}

// asRecorded applies the recorded owner of an open file or directory.
func asRecorded(o Owners, attrs xattrs, fd int, st *unix.Stat_t) error {
	switch {
	case o == nil:
		return nil
	case o.Beside():
		return o.Special(fd, "", st)
	case attrs.owner == nil:
		return nil
	}
	return o.Value(attrs.owner, st)
}

// asNoted applies the recorded owner of any other file, for example a symbolic link.
func asNoted(o Owners, dir int, name string, st *unix.Stat_t) error {
	if o == nil {
		return nil
	}
	return o.Special(dir, name, st)
}

func (o Options) xattrPrefix() string {
	if o.UserXattr {
		return "user.overlay."
	}
	return "trusted.overlay."
}

// Result describes the layer.
type Result struct {
	// DiffID is the digest of the uncompressed archive, Size is its length in bytes, and
	// Files is the number of its entries, including whiteouts.
	DiffID digest.Digest
	Size   int64
	Files  int
	// UIDs and GIDs are the owners of the entries in ascending order. They are ids of the
	// user namespace of this process, or recorded ids if Options.Owners is set.
	UIDs, GIDs []uint32
	// TarSplit contains the headers of the archive as JSON lines of tar-split. It is an
	// anonymous memory file (memfd_create(2)) of about 0.8 kB per entry, positioned at
	// its start. The caller must close it.
	TarSplit *os.File
}

// Pack writes Options.Upper as a layer. It needs a few buffers of 1 MiB whatever the size
// of the files. If ctx ends, it returns the cause of ctx. The error wraps
// ErrReservedName, ErrNotSelfContained, ErrPathTooLong or ErrChanged if that is the
// reason.
func Pack(ctx context.Context, o Options) (*Result, error) {
	res, err := pack(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("pack the layer: %w", err)
	}
	return res, nil
}

func pack(ctx context.Context, o Options) (_ *Result, err error) {
	split, err := newTarSplit()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, split.file.Close())
		}
	}()
	low, err := openLowers(o.Lower, o.xattrPrefix(), o.Owners)
	if err != nil {
		return nil, err
	}
	defer low.close()

	group, ctx := errgroup.WithContext(ctx)
	flow := newFlow()
	defer flow.dirs.closeAll()
	walk := &walker{ctx: ctx, flow: flow, prefix: o.xattrPrefix(), lowers: low, owners: o.Owners, named: o.NamedMarks}
	group.Go(func() error { return walk.run(o.Upper) })
	for range readers {
		group.Go(func() error { return flow.read(ctx, o.xattrPrefix(), o.Owners) })
	}
	out := newStream(ctx, group, o.Output)
	w := &layerWriter{flow: flow, out: out, split: split, links: map[inode]string{}, uids: idSet{}, gids: idSet{}}
	group.Go(func() error { return w.run(ctx) })
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if err := split.rewind(); err != nil {
		return nil, err
	}
	return &Result{
		DiffID:   out.digest(),
		Size:     out.size,
		Files:    w.files,
		UIDs:     w.uids.sorted(),
		GIDs:     w.gids.sorted(),
		TarSplit: split.file,
	}, nil
}

// inode identifies a file independently of its names.
type inode struct {
	dev, ino uint64
}

func inodeOf(st *unix.Stat_t) inode {
	return inode{dev: st.Dev, ino: st.Ino}
}

// idSet is a set of owners.
type idSet map[uint32]struct{}

func (s idSet) add(id uint32) {
	if _, ok := s[id]; !ok {
		s[id] = struct{}{}
	}
}

func (s idSet) sorted() []uint32 {
	ids := make([]uint32, 0, len(s))
	for id := range s {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
