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
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
)

// Staged is the complete and described content of a layer in its staging directory.
// Records.Add makes it a layer. The caller must call Drop in any case. The directory is
// locked as long as the process lives, so that other processes can distinguish it from
// the directory of a killed process.
type Staged struct {
	store *Store
	dir   *stagingDir
	out   *graphdriver.DriverWithDifferOutput
	// gone reports that the content was dropped or became a layer.
	gone bool
}

// Stage calls fill, which makes the content of a layer in a staging directory. After an
// error or a cancellation, no files remain. No lock of the store is held meanwhile.
func (s *Store) Stage(ctx context.Context, fill FillFunc) (*Staged, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	s.prepareOnce.Do(s.prepareStaging)
	if s.prepareErr != nil {
		return nil, s.prepareErr
	}
	dir, err := newStagingDir(s.stagingBase)
	if err != nil {
		s.noteMissing(s.stagingBase)
		return nil, err
	}
	st := &Staged{store: s, dir: dir}
	if err := st.fill(ctx, fill); err != nil {
		return nil, err
	}
	return st, nil
}

// DiffID returns the digest of the layer's uncompressed tar stream.
func (st *Staged) DiffID() digest.Digest { return st.out.UncompressedDigest }

// Drop removes the content if it did not become a layer. The caller must not use its
// files afterwards.
func (st *Staged) Drop() error {
	if st.gone {
		return nil
	}
	st.gone = true
	var err error
	if st.out.TarSplit != nil {
		err = st.out.TarSplit.Close()
	}
	return errors.Join(err, st.dir.remove())
}

// recorded notes that the driver has renamed the content of the layer.
func (st *Staged) recorded() {
	st.gone = true
	if err := st.dir.finish(); err != nil {
		st.store.logger.Warn("an empty staging directory stays behind", "path", st.dir.path, "error", err)
	}
}

// fill calls fill to make the content of the layer. If fill fails or panics, the staging
// directory is removed.
func (st *Staged) fill(ctx context.Context, fill FillFunc) error {
	filled := false
	defer func() {
		if !filled {
			_ = st.dir.remove() // the panic continues
		}
	}()
	diff, target, err := st.run(ctx, fill)
	filled = true
	if err != nil {
		st.store.noteMissing(st.dir.path)
		st.store.noteFull(st.dir.path, err)
		if diff.TarSplit != nil {
			err = errors.Join(err, diff.TarSplit.Close())
		}
		return errors.Join(err, st.dir.remove())
	}
	st.out = &graphdriver.DriverWithDifferOutput{
		Target:             target,
		UncompressedDigest: diff.DiffID,
		CompressedDigest:   diff.Blob,
		RootDirMode:        diff.RootMode,
		Size:               diff.Size,
		UIDs:               diff.UIDs,
		GIDs:               diff.GIDs,
		TarSplit:           diff.TarSplit,
	}
	return nil
}

func (st *Staged) run(ctx context.Context, fill FillFunc) (diff Diff, target string, err error) {
	how, err := st.store.unpacking()
	if err != nil {
		return Diff{}, "", err
	}
	in := Staging{
		Upper: filepath.Join(st.dir.path, "dir"), Work: filepath.Join(st.dir.path, "work"), Merged: filepath.Join(st.dir.path, "merged"),
		unpacking: how,
	}
	if err := makeStaging(in); err != nil {
		return Diff{}, "", err
	}
	if diff, err = fill(ctx, in); err != nil {
		return diff, "", err
	}
	if err := context.Cause(ctx); err != nil {
		return diff, "", err
	}
	if err := diff.check(); err != nil {
		return diff, "", err
	}
	if err := checkUnmounted(st.dir.path); err != nil {
		return diff, "", err
	}
	// They are removed before the layer is recorded. If the process is killed after that,
	// it leaves only an empty directory.
	for _, dir := range []string{in.Merged, in.Work} {
		if err := rmtree.Remove(dir); err != nil {
			return diff, "", fmt.Errorf("remove staging directory: %w", err)
		}
	}
	return diff, in.Upper, forgetOwner(in.Upper)
}

// forgetOwner removes the record of the owner of a layer's root directory. The library
// would make that owner the owner of the directory of every layer on it (drivers/overlay,
// getLayerPermissions), and only a process with that id can do so. In a step, the root
// directory belongs to root in any case. A layer that is passed on unchanged has the
// owner from the tar-split.
func forgetOwner(root string) error {
	err := unix.Lremovexattr(root, ownerRecord)
	if err == nil || errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return &os.PathError{Op: "remove the record of the owner of", Path: root, Err: err}
}

func makeStaging(st Staging) error {
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{st.Upper, st.rootMode()}, {st.Work, 0o700}, {st.Merged, 0o700}} {
		if err := os.Mkdir(d.path, d.mode); err != nil {
			return fmt.Errorf("create staging directory: %w", err)
		}
	}
	return letFill(st.Upper)
}

// letFill makes a layer's directory writable for its owner. The directory has mode 0555,
// like those of the driver, but a process with capabilities can usually write to it. A
// file server ignores the capabilities of users, so letFill then sets mode 0755. The mode
// is not set back later, because a rename of the directory also needs write permission
// for it.
func letFill(dir string) error {
	if unix.Access(dir, unix.W_OK) == nil {
		return nil
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the root of a file system is world-readable
		return fmt.Errorf("create staging directory: %w", err)
	}
	return nil
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
