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
	// ErrReservedName is returned for a file whose name begins with ".wh.":
	// in a layer it would mean that another file is deleted.
	ErrReservedName = errors.New(`names beginning with ".wh." cannot be kept in an image layer`)
	// ErrNotSelfContained is returned for an upper directory that refers to
	// what lies below it (overlayfs's redirect_dir or metacopy): its own files
	// are not the whole of the change.
	ErrNotSelfContained = errors.New("the upper directory refers to its lower layers (redirect_dir or metacopy)")
	// ErrPathTooLong is returned for a file at the end of a path of more than
	// 16 KiB, four times what system calls take.
	ErrPathTooLong = errors.New("the path is longer than 16 KiB")
	// ErrChanged is returned when a file changes while it is read.
	ErrChanged = errors.New("changed while being packed")
)

// readers is how many goroutines open and read files ahead of the writer. Two
// keep one hash busy; more only compete with it.
const readers = 2

// Options say what to pack.
type Options struct {
	// Upper is the directory to pack. Nobody may write to it meanwhile.
	Upper string
	// Lower are the directories it was mounted over, topmost first.
	Lower []string
	// UserXattr: overlayfs's marks are user.overlay.*, not trusted.overlay.*.
	UserXattr bool
	// NamedMarks: an empty file .wh.NAME in Upper says that NAME is deleted, as
	// packages overlay/plain and containers/storage have it where no device can
	// be made. Without, such a name is refused with ErrReservedName.
	NamedMarks bool
	// Owners, if not nil, knows the owners of files that really are root's.
	Owners Owners
	// Output, if not nil, receives the archive.
	Output io.Writer
}

// Owners makes what stat(2) says of a file what is recorded about it: its owner
// and, of an empty file that stands for a device, its type and number.
type Owners interface {
	// Value reads the attribute user.containers.override_stat of the file.
	Value(value []byte, st *unix.Stat_t) error
	// Special is asked about what can have no attribute: name in dir, which
	// is not followed, or, for "", what dir is.
	Special(dir int, name string, st *unix.Stat_t) error
	// Beside reports whether Special is to be asked about all files, and
	// attributes are not read.
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

// asNoted applies the recorded owner of anything else.
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
	// DiffID is the digest of the uncompressed archive, Size its length in
	// bytes and Files the number of its entries, whiteouts included.
	DiffID digest.Digest
	Size   int64
	Files  int
	// UIDs and GIDs are the owners that occur, ascending, as seen from this
	// process's user namespace.
	UIDs, GIDs []uint32
	// TarSplit holds the archive's headers as tar-split's JSON lines, to be
	// read from the start: about 0.8 kB per entry in an anonymous memory file
	// (memfd_create(2)). The caller closes it.
	TarSplit *os.File
}

// Pack writes Upper as a layer. It holds a few buffers of 1 MiB, whatever the
// size of the files, and returns early when ctx ends. Needs Linux 5.6
// (openat2) when there are Lowers.
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

// inode identifies a file whatever its names.
type inode struct {
	dev, ino uint64
}

func inodeOf(st *unix.Stat_t) inode {
	return inode{dev: st.Dev, ino: st.Ino}
}

// idSet collects owners.
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
