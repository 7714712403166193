package local

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// batchSize is the number of entries in a batch.
	batchSize = 256
	// partFiles and partBytes limit the files that one goroutine hashes. A part is hashed
	// when it reaches one of these limits.
	partFiles, partBytes = 32, 1 << 20
)

// scanned is an entry that a scan passes to its visitor.
type scanned struct {
	*Pick
	children int // number of picked entries of a directory
}

// batch is a part of the walk. It is ready when its files are hashed.
type batch struct {
	entries []scanned
	hashing *errgroup.Group
}

// scan walks picks and the entries below them in the order of their names. It calls visit
// for each entry after the sums of the files are set. Listing, hashing and visiting run
// in parallel, and at most a few batches are in memory.
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

// scanner is the state of the walk of a scan.
type scanner struct {
	tree  *Tree
	out   chan *batch
	slots chan struct{} // limits the goroutines that hash

	batch *batch
	part  []*Entry
	bytes int64
}

// visit calls visit for the entries of all batches. After an error it waits for the
// remaining batches, so that no goroutine of the scan outlives it.
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

// close ends the walk. If the walk ended early, it waits for the last batch.
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

// hash starts a goroutine that hashes the files of the current part.
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

// flush passes the current batch to visit.
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
