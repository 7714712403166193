package local

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many entries are handed on at once.
	batchSize = 256
	// A part of the files to hash goes to one goroutine when it has this many
	// files or bytes.
	partFiles, partBytes = 32, 1 << 20
)

// scanned is an entry on its way to whoever looks at a tree.
type scanned struct {
	*Pick
	children int // picked, of a directory
}

// batch is a piece of the walk. It is ready when its files are hashed.
type batch struct {
	entries []scanned
	hashing *errgroup.Group
}

// scan walks picks, each followed by what is below it in the order of names, and
// hands them to visit with the sums of files filled in. Listing, hashing and
// visiting go on at the same time; no more than a few batches are in memory.
func (t *Tree) scan(ctx context.Context, picks []*Pick, visit func(scanned) error) error {
	group, ctx := errgroup.WithContext(ctx)
	w := &scanner{tree: t, out: make(chan *batch, 8), slots: make(chan struct{}, max(2, min(runtime.GOMAXPROCS(0), 8)))}
	group.Go(func() error {
		defer w.close()
		for _, p := range picks {
			if err := w.walk(ctx, p); err != nil {
				return err
			}
		}
		return w.flush(ctx)
	})
	group.Go(func() error { return w.visit(visit) })
	return group.Wait()
}

// scanner is the walking side of a scan.
type scanner struct {
	tree  *Tree
	out   chan *batch
	slots chan struct{} // of goroutines that hash

	batch *batch
	part  []*Entry
	bytes int64
}

// visit hands the batches to the visitor, and after an error waits for those
// that are left: nothing of a scan outlives it.
func (w *scanner) visit(visit func(scanned) error) (err error) {
	defer func() {
		for b := range w.out {
			_ = b.hashing.Wait()
		}
	}()
	for b := range w.out {
		if err := b.hashing.Wait(); err != nil {
			return err
		}
		for _, s := range b.entries {
			if err := visit(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// close ends the walk. A batch is left when it ended early.
func (w *scanner) close() {
	if w.batch != nil {
		_ = w.batch.hashing.Wait()
	}
	close(w.out)
}

func (w *scanner) walk(ctx context.Context, p *Pick) error {
	below, err := p.Below()
	if err != nil {
		return err
	}
	if err := w.add(ctx, scanned{p, len(below)}); err != nil {
		return err
	}
	for _, c := range below {
		if c.IsDir() {
			err = w.walk(ctx, c)
		} else {
			err = w.add(ctx, scanned{Pick: c})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *scanner) add(ctx context.Context, s scanned) error {
	if w.batch == nil {
		w.batch = &batch{entries: make([]scanned, 0, batchSize), hashing: &errgroup.Group{}}
	}
	w.batch.entries = append(w.batch.entries, s)
	if s.kind() == unix.S_IFREG && s.sum.Load() == nil && !w.tree.remembered(s.Entry) {
		w.part = append(w.part, s.Entry)
		if w.bytes += s.st.Size; len(w.part) == partFiles || w.bytes >= partBytes {
			if err := w.hash(ctx); err != nil {
				return err
			}
		}
	}
	if len(w.batch.entries) < batchSize {
		return nil
	}
	return w.flush(ctx)
}

// hash has the files of the part hashed.
func (w *scanner) hash(ctx context.Context) error {
	if len(w.part) == 0 {
		return nil
	}
	select {
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	part := w.part
	w.part, w.bytes = nil, 0
	w.batch.hashing.Go(func() error {
		defer func() { <-w.slots }()
		for _, e := range part {
			if err := e.hash(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}

// flush hands the batch on.
func (w *scanner) flush(ctx context.Context) error {
	if w.batch == nil {
		return ctx.Err()
	}
	if err := w.hash(ctx); err != nil {
		return err
	}
	b := w.batch
	w.batch = nil
	select {
	case w.out <- b:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
