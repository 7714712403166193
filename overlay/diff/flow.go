package diff

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// batchEntries is the number of entries that are passed between goroutines together.
	// It is large enough that waking a goroutine adds no measurable time per file.
	batchEntries = 32
	// slabSize limits the contents that are read ahead per batch. prefetchMax is the
	// largest size of a file that is read ahead. The writer reads all other files itself.
	slabSize    = 1 << 20
	firstSlab   = 64 << 10 // see firstChunk
	prefetchMax = 256 << 10
	// slabs limits the number of batches in use.
	slabs = 8
)

// entry is a candidate for the archive. The walker creates it, a reader completes it, and
// the writer writes it.
type entry struct {
	// name is the path in the archive, with a final slash for a directory.
	name string
	// dir and base name a regular file that a reader must complete. dir is nil if the
	// walker has completed the entry.
	dir  *dirHandle
	base string

	stat unix.Stat_t
	// head is the encoded header. fields is set if the header may have to be rewritten as
	// a hard link.
	head   []byte
	fields *header
	// size is the length of the contents. data and sum are the contents and their
	// checksum if they were read ahead.
	size int64
	data []byte
	sum  uint64
	// whiteout is set for a deleted name.
	whiteout bool
}

// batch is a sequence of entries in archive order.
type batch struct {
	entries []entry
	slab    []byte
	room    int           // size of the slab if it is nil
	ready   chan struct{} // closed when a reader has filled the batch
}

// flow connects walker, readers and writer. The walker assigns slabs to batches in order.
// If readers took the slabs themselves, later batches could take all of them while a
// reader waits for one. Later batches are released only after the batch of that reader,
// so it would wait forever.
type flow struct {
	work    chan *batch // to any reader
	ordered chan *batch // to the writer
	free    chan []byte
	room    int // size of the next slab
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
		f.free <- nil // allocated on first use: small layers need only one
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

// submit passes a batch to the readers and to the writer. Neither channel can be full,
// because there are no more batches than slabs.
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

// dirHandle is an open directory. It is closed after its last use.
type dirHandle struct {
	fd    int
	users atomic.Int32
}

// dirTable holds the open directories, so that all can be closed if packing ends early.
type dirTable struct {
	mu   sync.Mutex
	open map[*dirHandle]struct{}
}

// add takes over fd and returns its handle with one user.
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
	_ = unix.Close(d.fd) // opened for reading, so no error matters
}

func (t *dirTable) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := range t.open {
		_ = unix.Close(d.fd)
	}
	clear(t.open)
}
