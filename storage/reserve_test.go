package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.podman.io/storage/types"
	"golang.org/x/sys/unix"
)

func TestReserve(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := &Store{graphRoot: root, logger: slog.New(slog.DiscardHandler)}
	dir := filepath.Join(root, stateDir, reserveState)
	taken := func() (files int, blocks int64) {
		for _, path := range list(dir) {
			var st unix.Stat_t
			if err := unix.Stat(path, &st); err != nil {
				t.Fatal(err)
			}
			files, blocks = files+1, blocks+st.Blocks*512
		}
		return files, blocks
	}
	s.makeReserve()
	if files, bytes := taken(); files != reserveFiles || bytes < reserveFiles*reserveBytes {
		t.Errorf("the reserve has %d files with %d bytes of disk", files, bytes)
	}
	l := &Location{so: types.StoreOptions{GraphRoot: root}}
	l.freeReserve()
	if files, _ := taken(); files != 0 {
		t.Errorf("%d files of the reserve stay", files)
	}
	s.KeepReserve()
	if files, _ := taken(); files != reserveFiles {
		t.Errorf("%d files of the reserve were made again", files)
	}
	if err := os.Remove(filepath.Join(dir, "7")); err != nil {
		t.Fatal(err)
	}
	s.KeepReserve()
	if files, _ := taken(); files != reserveFiles {
		t.Errorf("a file of the reserve that was missing stays so: %d", files)
	}
}

func TestNoSpace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writing := &fs.PathError{Op: "write", Path: filepath.Join(root, "sub/file"), Err: unix.ENOSPC}
	tests := map[string]struct {
		err   error
		full  bool
		quota bool
		words string
	}{
		"none":               {},
		"another":            {err: fs.ErrNotExist},
		"a write":            {err: fmt.Errorf("pack: %w", writing), full: true, words: "pack: write " + writing.Path},
		"of a helper":        {err: fmt.Errorf("helper: no space left on device"), full: true, words: "helper: no space left on device"},
		"a quota":            {err: fmt.Errorf("pack: %w", unix.EDQUOT), full: true, quota: true, words: "quota"},
		"joined":             {err: fmt.Errorf("a: %w, b: %w", fs.ErrClosed, writing), full: true, words: "shale system prune"},
		"several lines":      {err: fmt.Errorf("first\nsecond: %w", writing), full: true, words: "first: the file system"},
		"a full file system": {err: &FullError{Err: writing}, full: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := NoSpace(tc.err, root)
			full, ok := got.(*FullError) //nolint:errorlint // the outermost is meant
			if ok != tc.full || !ok && !errors.Is(got, tc.err) {
				t.Fatalf("%v becomes %v", tc.err, got)
			}
			if !ok {
				return
			}
			if full.Quota != tc.quota || full.ExitCode() != 125 || !strings.Contains(full.Error(), tc.words) {
				t.Errorf("quota %v, exit code %d: %s", full.Quota, full.ExitCode(), full)
			}
		})
	}
}

func TestSpaceOf(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	sp, err := SpaceOf(filepath.Join(root, "not", "there"))
	if err != nil || sp.Path != root || sp.Size == 0 || sp.Free > sp.Size {
		t.Errorf("%+v, %v", sp, err)
	}
	const mb = 1 << 20
	for want, sp := range map[string]Space{
		"/d is full: 1kB of 1.05GB are free":                            {Path: "/d", Size: 1000 * mb, Free: 1000, Inodes: 100, FreeInodes: 50},
		"/d has no inodes left: 3 of 100 are free, and 105MB of 1.05GB": {Path: "/d", Size: 1000 * mb, Free: 100 * mb, Inodes: 100, FreeInodes: 3},
	} {
		if got := sp.String(); !strings.HasSuffix(got, strings.TrimPrefix(want, "/d")) || !sp.Full() {
			t.Errorf("%s; want …%s", got, want)
		}
	}
	if (Space{Size: mb, Free: fullBytes}).Full() {
		t.Error("a file system that makes inodes as they are needed is full")
	}
}
