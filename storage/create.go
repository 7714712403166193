package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	cstorage "go.podman.io/storage"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/stringid"
	"golang.org/x/sys/unix"
)

// CreateLayer lets fill work in a staging directory and records the result as a
// layer on parent, "" for none. When a layer of the same content exists on parent
// already, that one is returned and the new one is dropped. What was written is
// on disk before it is recorded. On error or cancellation nothing remains.
//
// No lock of the store is held while fill runs. The staging directory is locked
// (fcntl(2)) as long as the process lives, so that others can tell it from one
// that a killed process left behind.
func (s *Store) CreateLayer(ctx context.Context, parent string, fill FillFunc) (Layer, error) {
	if parent != "" {
		if _, err := s.Layer(parent); err != nil {
			return Layer{}, err
		}
	}
	s.reapOnce.Do(s.reapStaging)
	out, err := s.stage(ctx, fill)
	if err != nil {
		return Layer{}, err
	}
	return s.record(ctx, parent, out)
}

// stageAttempts bounds how often a staging directory is asked for again.
const stageAttempts = 5

// stage runs fill in a staging directory. The driver makes that directory before
// it locks it, and another process that cleans up may take it away in between:
// then fill has not been called yet and there is another attempt.
func (s *Store) stage(ctx context.Context, fill FillFunc) (*graphdriver.DriverWithDifferOutput, error) {
	for attempt := 1; ; attempt++ {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		d := &differ{ctx: ctx, fill: fill}
		out, err := s.lib.PrepareStagedLayer(&graphdriver.ApplyDiffWithDifferOpts{}, d)
		if err == nil {
			return out, nil
		}
		if d.called || attempt == stageAttempts {
			if d.fillErr != nil {
				return nil, d.fillErr
			}
			return nil, fmt.Errorf("prepare layer: %w", err)
		}
	}
}

// record makes a layer of what was staged.
func (s *Store) record(ctx context.Context, parent string, out *graphdriver.DriverWithDifferOutput) (_ Layer, err error) {
	staging := filepath.Dir(out.Target)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.dropStaged(out))
		}
	}()
	unlock, err := s.lockRecords()
	if err != nil {
		return Layer{}, err
	}
	defer unlock()
	if err := context.Cause(ctx); err != nil {
		return Layer{}, err
	}
	same, found, err := s.FindLayer(parent, out.UncompressedDigest)
	if err != nil {
		return Layer{}, err
	}
	if found {
		// Nothing of the new one is wanted any more.
		if err := s.dropStaged(out); err != nil {
			s.logger.Warn("a staging directory stays behind", "path", staging, "error", err)
		}
		return same, nil
	}
	id := s.newLayerID(parent, out.UncompressedDigest)
	done, err := s.announce(pendingLayer, id)
	if err != nil {
		return Layer{}, err
	}
	defer func() { err = errors.Join(err, done()) }()
	l, err := s.lib.ApplyStagedLayer(cstorage.ApplyStagedLayerOptions{
		ID:           id,
		ParentLayer:  parent,
		LayerOptions: &cstorage.LayerOptions{},
		DiffOutput:   out,
		DiffOptions:  &graphdriver.ApplyDiffWithDifferOpts{},
	})
	if errors.Is(err, cstorage.ErrLayerUnknown) {
		return Layer{}, fmt.Errorf("record layer on %s, which was removed meanwhile: %w", short(parent), ErrLayerUnknown)
	}
	if err != nil {
		return Layer{}, fmt.Errorf("record layer: %w", err)
	}
	// The driver leaves the directory behind, empty.
	if err := os.Remove(staging); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.logger.Warn("an empty staging directory stays behind", "path", staging, "error", err)
	}
	return layerOf(l), nil
}

// newLayerID is the ID under which containers/image would record the layer
// (storage/storage_dest.go, layerID): pulling an image that was built here
// finds its layers, and does not meet an image of the same ID on other ones.
func (s *Store) newLayerID(parent string, diffID digest.Digest) string {
	id := diffID.Encoded()
	if parent != "" {
		id = digest.Canonical.FromString(parent + "+" + id).Encoded()
	}
	if _, err := s.lib.Layer(id); err == nil {
		// Taken by a layer that does not say what is in it.
		return stringid.GenerateRandomID()
	}
	return id
}

func (s *Store) dropStaged(out *graphdriver.DriverWithDifferOutput) error {
	if err := s.lib.CleanupStagedLayer(out); err != nil {
		return fmt.Errorf("remove staging directory: %w", err)
	}
	return nil
}

// lockRecords lets one process at a time look for a layer and record it, so
// that two which made the same layer keep one. Recording takes the store's own
// lock anyway.
func (s *Store) lockRecords() (unlock func(), err error) {
	dir, err := s.StateDir(".")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "record.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the record of layers: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the record of layers: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// differ is a graphdriver.Differ that lets a FillFunc make the layer.
type differ struct {
	ctx     context.Context //nolint:containedctx // the interface has none
	fill    FillFunc
	called  bool
	fillErr error
}

var _ graphdriver.Differ = (*differ)(nil)

// Close has nothing to release.
func (d *differ) Close() error { return nil }

// ApplyDiff fills dest. On error nothing of the staging directory remains.
func (d *differ) ApplyDiff(dest string, _ *archive.TarOptions, _ *graphdriver.DifferOptions) (graphdriver.DriverWithDifferOutput, error) {
	dir := filepath.Dir(dest)
	diff, err := d.run(Staging{Upper: dest, Work: filepath.Join(dir, "work"), Merged: filepath.Join(dir, "merged")})
	if err != nil {
		if diff.TarSplit != nil {
			err = errors.Join(err, diff.TarSplit.Close())
		}
		d.fillErr = errors.Join(err, removeStaging(dir))
		return graphdriver.DriverWithDifferOutput{}, d.fillErr
	}
	return graphdriver.DriverWithDifferOutput{
		Target:             dest,
		UncompressedDigest: diff.DiffID,
		Size:               diff.Size,
		UIDs:               diff.UIDs,
		GIDs:               diff.GIDs,
		TarSplit:           diff.TarSplit,
	}, nil
}

func (d *differ) run(st Staging) (diff Diff, err error) {
	// A panic in fill must not leave a directory and its lock behind either.
	defer func() {
		if p := recover(); p != nil {
			_ = removeStaging(filepath.Dir(st.Upper))
			panic(p)
		}
	}()
	for _, dir := range []string{st.Work, st.Merged} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return Diff{}, fmt.Errorf("create staging directory: %w", err)
		}
	}
	d.called = true
	if diff, err = d.fill(d.ctx, st); err != nil {
		return diff, err
	}
	if err := context.Cause(d.ctx); err != nil {
		return diff, err
	}
	if err := diff.check(); err != nil {
		return diff, err
	}
	if err := checkUnmounted(filepath.Dir(st.Upper)); err != nil {
		return diff, err
	}
	// Before the layer is recorded, so that whoever dies in between leaves an
	// empty directory and no more.
	for _, dir := range []string{st.Merged, st.Work} {
		if err := os.RemoveAll(dir); err != nil {
			return diff, fmt.Errorf("remove staging directory: %w", err)
		}
	}
	return diff, syncTree(st.Upper)
}

func (d Diff) check() error {
	if err := d.DiffID.Validate(); err != nil {
		return fmt.Errorf("describe layer: diffID %q: %w", d.DiffID, err)
	}
	if d.Size < 0 || d.TarSplit == nil {
		return errors.New("describe layer: size or tar-split is missing")
	}
	return nil
}

// syncTree writes the file system of dir to disk.
func syncTree(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("write layer to disk: %w", err)
	}
	return nil
}

func checkUnmounted(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("finish layer: %s is still mounted", strings.Join(mounts, ", "))
	}
	return nil
}
