package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	graphdriver "go.podman.io/storage/drivers"
	"go.podman.io/storage/pkg/archive"
)

// Staged is the content of a layer, complete and described, in its staging
// directory. Records make it a layer; Drop ends it in any case. Until then the
// directory is locked (fcntl(2)) as long as the process lives, so that others can
// tell it from one that a killed process left behind.
type Staged struct {
	store *Store
	out   *graphdriver.DriverWithDifferOutput
	// gone tells that nothing is left to drop: it was, or it became a layer.
	gone bool
}

// Stage lets fill make the content of a layer in a staging directory. On error or
// cancellation nothing remains. No lock of the store is held meanwhile.
func (s *Store) Stage(ctx context.Context, fill FillFunc) (*Staged, error) {
	s.prepareOnce.Do(s.prepareStaging)
	out, err := s.stage(ctx, fill)
	if err != nil {
		return nil, err
	}
	return &Staged{store: s, out: out}, nil
}

// DiffID is the digest of the layer as an uncompressed tar stream.
func (st *Staged) DiffID() digest.Digest { return st.out.UncompressedDigest }

// Drop removes what did not become a layer. Nobody uses its files any more.
func (st *Staged) Drop() error {
	if st.gone {
		return nil
	}
	st.gone = true
	if err := st.store.lib.CleanupStagedLayer(st.out); err != nil {
		return fmt.Errorf("remove staging directory: %w", err)
	}
	return nil
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
func (d *differ) ApplyDiff(dest string, tar *archive.TarOptions, options *graphdriver.DifferOptions) (graphdriver.DriverWithDifferOutput, error) {
	dir := filepath.Dir(dest)
	diff, err := d.run(Staging{
		Upper: dest, Work: filepath.Join(dir, "work"), Merged: filepath.Join(dir, "merged"),
		options: *tar, flat: options.Format != graphdriver.DifferOutputFormatDir,
	})
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
		CompressedDigest:   diff.Blob,
		RootDirMode:        diff.RootMode,
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
	return diff, nil
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
