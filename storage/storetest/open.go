package storetest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	tarsplit "github.com/vbatts/tar-split/tar/storage"
	"go.podman.io/storage/pkg/archive"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
)

const helperEnv = "SHALE_STORETEST_HELPER"

// Roots has the directories of a test's store.
type Roots struct {
	Graph, Run string
}

// NewRoots makes directories for a store. They are unmounted and removed after the test.
func NewRoots(t testing.TB) Roots {
	t.Helper()
	// podman does not accept a run root of more than 50 characters.
	run, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	r := Roots{Graph: filepath.Join(t.TempDir(), "graph"), Run: run}
	t.Cleanup(func() {
		if err := os.RemoveAll(run); err != nil {
			t.Error(err)
		}
		Unmount(r.Graph)
	})
	return r
}

// Unmount removes the mount of a store on itself, and the mounts of a test on its
// directory of layers.
func Unmount(graphRoot string) {
	for _, dir := range []string{graphRoot, filepath.Join(graphRoot, "overlay")} {
		for unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	}
}

// Open opens the store of r and closes it after the test.
func Open(t testing.TB, r Roots) *storage.Store {
	t.Helper()
	s, err := OpenRoots(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// OpenRoots is Open for helper processes.
func OpenRoots(r Roots) (*storage.Store, error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return storage.Open(storage.Options{GraphRoot: r.Graph, RunRoot: r.Run, Logger: logger})
}

// Command returns a command that runs the helper of Main in a new process of this test
// binary, in the same namespaces.
func Command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Fill returns a FillFunc that calls write with the upper directory and packs the result.
func Fill(write func(upper string) error) storage.FillFunc {
	return func(_ context.Context, st storage.Staging) (storage.Diff, error) {
		if err := write(st.Upper); err != nil {
			return storage.Diff{}, err
		}
		return Pack(st.Upper)
	}
}

// Pack describes the content of an upper directory. It supports neither opaque
// directories nor lower directories, which is enough for tests of package storage.
func Pack(upper string) (_ storage.Diff, err error) {
	split, err := os.CreateTemp("", "tar-split-")
	if err != nil {
		return storage.Diff{}, err
	}
	defer func() {
		err = errors.Join(err, os.Remove(split.Name()))
	}()
	stream, err := archive.TarWithOptions(upper, &archive.TarOptions{
		Compression: archive.Uncompressed, WhiteoutFormat: archive.OverlayWhiteoutFormat,
	})
	if err != nil {
		return storage.Diff{}, err
	}
	tee, packed, err := asm.NewInputTarStreamWithDone(stream, tarsplit.NewJSONPacker(split), tarsplit.NewDiscardFilePutter())
	if err != nil {
		return storage.Diff{}, err
	}
	hash := digest.Canonical.Digester()
	n, err := io.Copy(hash.Hash(), tee)
	if err := errors.Join(err, <-packed, tee.Close(), stream.Close()); err != nil {
		return storage.Diff{}, err
	}
	if _, err := split.Seek(0, io.SeekStart); err != nil {
		return storage.Diff{}, err
	}
	uids, gids, err := owned(upper)
	return storage.Diff{DiffID: hash.Digest(), Size: n, UIDs: uids, GIDs: gids, TarSplit: split}, err
}

func owned(dir string) (uids, gids []uint32, err error) {
	err = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			uids, gids = append(uids, st.Uid), append(gids, st.Gid)
		}
		return nil
	})
	slices.Sort(uids)
	slices.Sort(gids)
	return slices.Compact(uids), slices.Compact(gids), err
}
