package rootfs

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/storage"
)

// Base is what a layer is made on: a layer of the store, a draft, or, as the zero
// value, nothing.
type Base struct {
	// Layer and Chain are the ID and the chainID of a layer of the store.
	Layer string
	Chain digest.Digest
	// Draft is set for a layer that is not in the store yet.
	Draft *Draft
}

// Draft is a layer whose files are complete. In the background it is packed, which
// tells its digest, and recorded in the store, after its base. Meanwhile others
// build on its files: what recording does to their directory, a rename, is not
// seen by an overlay that is mounted over it.
type Draft struct {
	mounts *Mounter
	base   Base
	staged *storage.Staged

	// What each stage gives is there when it is over.
	filled  stage
	packed  stage // chain
	settled stage // layer, or the reason why there is none
	chain   digest.Digest
	layer   storage.Layer

	mu sync.Mutex
	// upper leads to the files wherever they are.
	upper *os.File
	// users have the files mounted or open. None comes any more when the
	// draft is settled; the last one then closes idle.
	users int
	idle  chan struct{}
	// dirs are the directories of the layer and of those below it.
	dirs []string
}

// stage ends once.
type stage struct {
	done chan struct{}
	err  error
}

func (s *stage) end(err error) {
	s.err = err
	close(s.done)
}

func (s *stage) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *stage) wait(ctx context.Context) error {
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Create makes a layer on base out of what fill does to root. It returns as soon
// as the files are complete; the rest follows in the background, whatever becomes
// of ctx by then. When fill fails no layer is made and its error is returned.
func (m *Mounter) Create(ctx context.Context, base Base, fill func(ctx context.Context, root string) error) (*Draft, error) {
	if m.plain != nil {
		return m.createPlain(ctx, base, func(parent string, lower []string) (storage.Layer, error) {
			return m.createInTree(ctx, parent, lower, fill)
		})
	}
	below, err := m.stack(ctx, base)
	if err != nil {
		return nil, err
	}
	d := &Draft{mounts: m, base: base, idle: make(chan struct{})}
	for _, s := range []*stage{&d.filled, &d.packed, &d.settled} {
		s.done = make(chan struct{})
	}
	m.drafts.Go(func() {
		d.make(below, func(st storage.Staging) error { return d.fill(ctx, below.dirs, st, fill) })
	})
	<-d.filled.done
	if d.filled.err != nil {
		return nil, d.filled.err
	}
	return d, nil
}

// CreateFiles is Create for a fill that writes to no file that is there, but
// replaces it. paths are those that it looks at, with what is below them; none
// means all.
func (m *Mounter) CreateFiles(ctx context.Context, base Base, paths []string, fill func(ctx context.Context, root string) error) (*Draft, error) {
	if m.plain != nil {
		return m.createPlain(ctx, base, func(parent string, lower []string) (storage.Layer, error) {
			return m.createLinked(ctx, parent, lower, paths, fill)
		})
	}
	return m.Create(ctx, base, fill)
}

// make carries a draft from its beginning to its end. What follows fill belongs to
// the build, not to the step.
func (d *Draft) make(below *stack, fill func(st storage.Staging) error) {
	m := d.mounts
	staged, err := m.store.Stage(m.ctx, func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
		if err := fill(st); err != nil {
			return storage.Diff{}, err
		}
		packed, err := d.unmountAndPack(ctx, below.dirs, st)
		if err != nil {
			// Once this returns, the files are gone.
			d.packed.end(err)
			d.settle(storage.Layer{}, nil, err)
			<-d.idle
		}
		return packed, err
	})
	below.release()
	if err == nil {
		d.staged = staged
		d.chain, err = d.chainOn(m.ctx, staged.DiffID())
	}
	for _, s := range []*stage{&d.filled, &d.packed} {
		if !s.over() {
			s.end(err)
		}
	}
	switch {
	case err == nil:
		m.recorder.record(m.ctx, d)
	case !d.settled.over():
		d.settle(storage.Layer{}, nil, err)
	}
	if err := d.drop(); err != nil {
		m.logger.Warn("a staging directory stays behind", "error", err)
	}
}

// fill has fill write into an overlay over the staging directory, which stays
// mounted unless there is an error.
func (d *Draft) fill(ctx context.Context, lower []string, st storage.Staging, fill func(ctx context.Context, root string) error) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := d.mounts.mountOver(lower, st); err != nil {
		return err
	}
	err := fill(ctx, st.Merged)
	if err == nil {
		d.upper, err = os.OpenFile(st.Upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	}
	if err = errors.Join(err, context.Cause(ctx)); err != nil {
		return errors.Join(err, overlay.Unmount(st.Merged))
	}
	return nil
}

// unmountAndPack does both at once: nobody writes any more, and unmounting takes
// the kernel the longer the more files there are. Others may build on the files
// when they are unmounted; an upper directory that is somebody else's lower one
// makes the kernel complain.
func (d *Draft) unmountAndPack(ctx context.Context, lower []string, st storage.Staging) (storage.Diff, error) {
	unmounted := make(chan error, 1)
	go func() {
		err := overlay.Unmount(st.Merged)
		if err == nil {
			d.filled.end(nil)
		}
		unmounted <- err
	}()
	packed, err := d.mounts.pack(ctx, lower, st.Upper)
	return packed, errors.Join(err, <-unmounted)
}

// chainOn is the chainID of a layer with diffID on the base: image-spec, config.md.
func (d *Draft) chainOn(ctx context.Context, diffID digest.Digest) (digest.Digest, error) {
	below := d.base.Chain
	if d.base.Draft != nil {
		var err error
		if below, err = d.base.Draft.Chain(ctx); err != nil {
			return "", err
		}
	}
	if below == "" {
		return diffID, nil
	}
	return identity.ChainID([]digest.Digest{below, diffID}), nil
}

// Chain waits for the chainID of the layer.
func (d *Draft) Chain(ctx context.Context) (digest.Digest, error) {
	err := d.packed.wait(ctx)
	if err != nil {
		return "", err
	}
	return d.chain, nil
}

// Layer waits until the layer is in the store and returns its ID.
func (d *Draft) Layer(ctx context.Context) (string, error) {
	err := d.settled.wait(ctx)
	if err != nil {
		return "", err
	}
	return d.layer.ID, nil
}

// Failed returns why there will be no layer, nil as long as there may be.
func (d *Draft) Failed() error {
	if !d.settled.over() {
		return nil
	}
	return d.settled.err
}

// settle says what became of the draft. dirs are the directories of the layer and
// of those below it; they take the place of the draft's own.
func (d *Draft) settle(layer storage.Layer, dirs []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.layer, d.dirs = layer, dirs
	d.settled.end(err)
	if d.users == 0 {
		close(d.idle)
	}
}

// hold returns the directories of the draft. As long as it is not settled that is
// one, which stays there until release.
func (d *Draft) hold() (dirs []string, held bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settled.over() {
		return d.dirs, false, d.settled.err
	}
	d.users++
	return []string{"/proc/self/fd/" + strconv.Itoa(int(d.upper.Fd()))}, true, nil
}

func (d *Draft) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users == 0 && d.settled.over() {
		close(d.idle)
	}
}

// drop waits for those who build on the files of a settled draft. Then it removes
// what did not become a layer: the draft failed, or its layer was there before.
func (d *Draft) drop() error {
	<-d.idle
	var err error
	if d.upper != nil {
		err = d.upper.Close()
	}
	if d.staged != nil {
		err = errors.Join(err, d.staged.Drop())
	}
	return err
}

// stack are the directories that a layer is made on, topmost first.
type stack struct {
	dirs []string
	held []*Draft
}

// stack finds the directories of base. They stay where they are until release.
func (m *Mounter) stack(ctx context.Context, base Base) (*stack, error) {
	s := &stack{}
	for base.Draft != nil {
		if err := base.Draft.filled.wait(ctx); err != nil {
			s.release()
			return nil, err
		}
		dirs, held, err := base.Draft.hold()
		if err != nil {
			s.release()
			return nil, err
		}
		s.dirs = append(s.dirs, dirs...)
		if !held {
			return s, nil
		}
		s.held = append(s.held, base.Draft)
		base = base.Draft.base
	}
	dirs, err := m.Lowers(base.Layer)
	if err != nil {
		s.release()
		return nil, err
	}
	s.dirs = slices.Concat(s.dirs, dirs)
	return s, nil
}

func (s *stack) release() {
	for _, d := range s.held {
		d.release()
	}
	s.held = nil
}
