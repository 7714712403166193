package rootfs

import (
	"context"
	"slices"
	"sync"

	"github.com/shale-build/shale/storage"
)

// recorder commits packed drafts. One call commits all drafts that are ready at that
// time.
type recorder struct {
	mounts *Mounter
	// turn is held during a commit.
	turn sync.Mutex

	mu    sync.Mutex
	ready []*Draft
}

// record commits d and returns when d is settled.
func (r *recorder) record(ctx context.Context, d *Draft) {
	r.mu.Lock()
	r.ready = append(r.ready, d)
	r.mu.Unlock()
	for {
		r.turn.Lock()
		if !d.settled.over() {
			r.recordAll(ctx, r.take())
		}
		r.turn.Unlock()
		if d.settled.over() {
			return
		}
		// The base of d is still being packed. Its commit includes d.
		<-d.base.Draft.settled.done
	}
}

// take removes and returns the drafts that are ready to be committed. The base of each
// draft is settled or comes before it in the result.
func (r *recorder) take() []*Draft {
	r.mu.Lock()
	defer r.mu.Unlock()
	var batch []*Draft
	for more := true; more; {
		more = false
		r.ready = slices.DeleteFunc(r.ready, func(d *Draft) bool {
			base := d.base.Draft
			if base != nil && !base.settled.over() && !slices.Contains(batch, base) {
				return false
			}
			batch, more = append(batch, d), true
			return true
		})
	}
	return batch
}

// recordAll settles all drafts of batch.
func (r *recorder) recordAll(ctx context.Context, batch []*Draft) {
	if len(batch) == 0 {
		return
	}
	records, err := r.mounts.store.OpenRecords(ctx)
	if err != nil {
		for _, d := range batch {
			d.settle(storage.Layer{}, nil, err)
		}
		return
	}
	for _, d := range batch {
		d.settle(r.recordOne(ctx, records, d))
	}
	if err := records.Close(); err != nil {
		r.mounts.logger.Warn("the end of recording layers was not announced", "error", err)
	}
}

func (r *recorder) recordOne(ctx context.Context, records *storage.Records, d *Draft) (layer storage.Layer, dirs []string, err error) {
	parent := d.base.Layer
	var below []string
	if base := d.base.Draft; base != nil {
		if base.settled.err != nil {
			return layer, nil, base.settled.err
		}
		parent, below = base.layer.ID, base.dirs
	} else if below, err = r.mounts.Lowers(parent); err != nil {
		return layer, nil, err
	}
	if layer, err = records.Add(ctx, parent, d.staged); err != nil {
		return layer, nil, err
	}
	dir, err := r.mounts.store.LayerDir(layer.ID)
	if err != nil {
		return layer, nil, err
	}
	dirs = slices.Concat([]string{dir}, below)
	// If the same layer already existed, its symbolic links are other inodes than those
	// of the draft. Load their owners.
	return layer, dirs, r.mounts.loadOwners(layer.ID, dirs)
}
