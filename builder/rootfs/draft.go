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

// Base is the base of a new layer: a layer of the store, a draft, or, as the zero value,
// an empty file system.
type Base struct {
	// Layer and Chain are the ID and the chainID of a layer of the store.
	Layer string
	Chain digest.Digest
	// Draft is set for a layer that is not in the store yet.
	Draft *Draft
}

// Draft is a layer that is not committed yet, but its files are complete. In the
// background it is packed, which computes its digest, and then committed to the store
// after its base. Meanwhile, other layers can be built on its files. Committing renames
// their directory, which does not affect an overlay that is mounted on it. A draft is
// settled when it is committed or has failed.
type Draft struct {
	mounts *Mounter
	base   Base
	staged *storage.Staged

	// The result of a stage is valid after its end.
	filled  stage
	packed  stage // sets chain
	settled stage // sets layer, or the error
	chain   digest.Digest
	layer   storage.Layer

	mu sync.Mutex
	// upper is the open directory of the files. It stays valid when the directory is
	// renamed.
	upper *os.File
	// users is the number of drafts that have the files mounted or open. A settled draft
	// gets no new users, and its last user closes idle.
	users int
	idle  chan struct{}
	// dirs are the directories of the layer and of its parents, topmost first.
	dirs []string
}

// stage is a phase of making a draft. It ends once, possibly with an error.
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

// Create makes a layer on base. fill writes the changes to the directory root. Create
// returns when the files are complete. The layer is packed and committed in the
// background, even if ctx is cancelled by then. If fill returns an error, no layer is
// made and Create returns that error.
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

// CreateFiles is like Create, for a fill that replaces existing files but never writes to
// them. fill may read only the paths and the files below them. If paths is empty, it may
// read everything.
func (m *Mounter) CreateFiles(ctx context.Context, base Base, paths []string, fill func(ctx context.Context, root string) error) (*Draft, error) {
	if m.plain != nil {
		return m.createPlain(ctx, base, func(parent string, lower []string) (storage.Layer, error) {
			return m.createLinked(ctx, parent, lower, paths, fill)
		})
	}
	return m.Create(ctx, base, fill)
}

// make takes a draft from fill to its end. After fill, it uses the context of the build,
// not of the step.
func (d *Draft) make(below *stack, fill func(st storage.Staging) error) {
	m := d.mounts
	staged, err := m.store.Stage(m.ctx, func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
		if err := fill(st); err != nil {
			return storage.Diff{}, err
		}
		packed, err := d.unmountAndPack(ctx, below.dirs, st)
		if err != nil {
			// The files are removed when this function returns.
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

// fill mounts an overlay on the staging directory and calls the function fill for it. If
// there is no error, the overlay stays mounted.
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

// unmountAndPack unmounts the overlay and packs the upper directory in parallel. This is
// safe because fill has ended. The time of unmounting grows with the number of files.
// Other layers can be built on the files only after they are unmounted, because the
// kernel warns if an upper directory is also the lower directory of another overlay.
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

// chainOn returns the chainID of a layer with diffID on the base (image-spec, config.md).
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

// Chain waits until the layer is packed and returns its chainID.
func (d *Draft) Chain(ctx context.Context) (digest.Digest, error) {
	err := d.packed.wait(ctx)
	if err != nil {
		return "", err
	}
	return d.chain, nil
}

// Layer waits until the layer is committed and returns its ID.
func (d *Draft) Layer(ctx context.Context) (string, error) {
	err := d.settled.wait(ctx)
	if err != nil {
		return "", err
	}
	return d.layer.ID, nil
}

// Failed returns the error that prevented the commit of the layer. It returns nil while
// the layer may still be committed.
func (d *Draft) Failed() error {
	if !d.settled.over() {
		return nil
	}
	return d.settled.err
}

// settle sets the result of the draft. dirs are the directories of the layer and of its
// parents. They replace the draft's own directory.
func (d *Draft) settle(layer storage.Layer, dirs []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.layer, d.dirs = layer, dirs
	d.settled.end(err)
	if d.users == 0 {
		close(d.idle)
	}
}

// hold returns the directories of the draft. While the draft is not settled, this is one
// directory, which is kept until release, and held is true.
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

// drop waits until a settled draft has no users. Then it removes the files if they did
// not become a layer: if the draft failed, or if the same layer already existed.
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

// stack is the list of directories below a new layer, topmost first.
type stack struct {
	dirs []string
	held []*Draft
}

// stack returns the directories of base. They are not moved until release.
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
