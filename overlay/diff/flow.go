package diff

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// batchEntries is how many entries travel together between goroutines:
	// enough that waking one up does not show in the time per file.
	batchEntries = 32
	// slabSize bounds the contents read ahead per batch, prefetchMax the size
	// of a file read ahead at all; anything else the writer reads itself.
	slabSize    = 1 << 20
	firstSlab   = 64 << 10 // see firstChunk
	prefetchMax = 256 << 10
	// slabs bounds the batches under way.
	slabs = 8
)

// entry is one candidate for the archive on its way from the walker through a
// reader to the writer.
type entry struct {
	// name is the path in the archive, a directory's with a final slash.
	name string
	// dir and base lead to a regular file, which a reader fills in; dir is nil
	// for everything that the walker has completed.
	dir  *dirHandle
	base string

	stat unix.Stat_t
	// head is the encoded header; fields is kept where it may have to be
	// rewritten as a hard link.
	head   []byte
	fields *header
	// size is the length of the contents, data the contents and sum their
	// checksum if they were read ahead.
	size int64
	data []byte
	sum  uint64
	// whiteout marks a deleted name.
	whiteout bool
}

// batch is a run of entries in archive order.
type batch struct {
	entries []entry
	slab    []byte
	room    int           // of the slab, if it is to be made
	ready   chan struct{} // closed when a reader is done with it
}

// flow connects walker, readers and writer. Batches get their slab from the
// walker, in order: a reader that had to wait for one could be overtaken by
// the batches that its own would have to release.
type flow struct {
	work    chan *batch // to whichever reader is free
	ordered chan *batch // to the writer
	free    chan []byte
	room    int // of the next slab
	dirs    dirTable
}

func newFlow() *flow {
	f := &flow{
		work:    make(chan *batch, slabs),
		ordered: make(chan *batch, slabs),
		free:    make(chan []byte, slabs),
		room:    firstSlab,
		dirs:    dirTable{open: map[*dirHandle]struct{}{}},
	}
	for range slabs {
		f.free <- nil // made when first used: small layers need one
	}
	return f
}

func (f *flow) newBatch(ctx context.Context) (*batch, error) {
	select {
	case slab := <-f.free:
		b := &batch{
			entries: make([]entry, 0, batchEntries),
			slab:    slab,
			room:    f.room,
			ready:   make(chan struct{}),
		}
		f.room = slabSize
		return b, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// submit hands a batch on. Neither channel can be full: there are no more
// batches than slabs.
func (f *flow) submit(b *batch) {
	f.work <- b
	f.ordered <- b
}

func (f *flow) finish() {
	close(f.work)
	close(f.ordered)
}

// read completes the regular files of one batch after the other.
func (f *flow) read(ctx context.Context, prefix string, owners Owners) error {
	for {
		select {
		case b, ok := <-f.work:
			if !ok {
				return nil
			}
			if err := b.fill(prefix, owners); err != nil {
				return err
			}
			close(b.ready)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (b *batch) fill(prefix string, owners Owners) error {
	used := 0
	for i := range b.entries {
		e := &b.entries[i]
		if e.dir == nil {
			continue
		}
		if b.slab == nil {
			b.slab = make([]byte, b.room)
		}
		n, err := e.load(b.slab[used:], prefix, owners)
		if err != nil {
			return atPath("read", e.name, err)
		}
		used += n
	}
	return nil
}

// dirHandle is an open directory, closed when its last user is done.
type dirHandle struct {
	fd    int
	users atomic.Int32
}

// dirTable knows the open directories, so that none stays open when packing
// ends early.
type dirTable struct {
	mu   sync.Mutex
	open map[*dirHandle]struct{}
}

// add takes over fd, with one user.
func (t *dirTable) add(fd int) *dirHandle {
	d := &dirHandle{fd: fd}
	d.users.Store(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[d] = struct{}{}
	return d
}

func (t *dirTable) release(d *dirHandle) {
	if d.users.Add(-1) > 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, d)
	_ = unix.Close(d.fd) // opened for reading: nothing to lose
}

func (t *dirTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := range t.open {
		_ = unix.Close(d.fd)
	}
	clear(t.open)
}
