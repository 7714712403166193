package storetest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.Main(m, helper)) }

// helper performs the action args[0] in another process.
func helper(args []string) int {
	roots := storetest.Roots{Graph: args[1], Run: args[2]}
	s, err := storetest.OpenRoots(roots)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx := context.Background()
	switch args[0] {
	case "die":
		_, err = s.CreateLayer(ctx, "", func(_ context.Context, st storage.Staging) (storage.Diff, error) {
			if err := os.WriteFile(filepath.Join(st.Upper, "half"), []byte("half"), 0o600); err != nil {
				return storage.Diff{}, err
			}
			return storage.Diff{}, syscall.Kill(os.Getpid(), syscall.SIGKILL)
		})
	case "wait":
		_, err = s.CreateLayer(ctx, "", func(_ context.Context, st storage.Staging) (storage.Diff, error) {
			fmt.Println(st.Upper)
			_, err := io.Copy(io.Discard, os.Stdin)
			return storage.Diff{}, err
		})
	case "many":
		err = createMany(ctx, s)
	case "pin":
		if err = s.Pin(args[3]); err == nil {
			err = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	case "next":
		_, err = s.CreateLayer(ctx, args[3], file("next", "3"))
	}
	if err := errors.Join(err, s.Close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

const many = 8

// createMany makes chains of layers. Every process that calls it makes the same chains.
func createMany(ctx context.Context, s *storage.Store) error {
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			base, err := s.CreateLayer(ctx, "", file("base", "shared"))
			if err == nil {
				_, err = s.CreateLayer(ctx, base.ID, file(fmt.Sprintf("f%d", i), "own"))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func file(name, content string) storage.FillFunc {
	return storetest.Fill(func(upper string) error {
		path := filepath.Join(upper, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
		at := time.Unix(1700000000, 0)
		return os.Chtimes(path, at, at)
	})
}

func create(t *testing.T, s *storage.Store, parent string, fill storage.FillFunc) storage.Layer {
	t.Helper()
	l, err := s.CreateLayer(t.Context(), parent, fill)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func checkNothingStaged(t *testing.T, s *storage.Store) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.GraphRoot(), "shale", "staging"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("staging directory %s is left behind", e.Name())
	}
}

func count(t *testing.T, s *storage.Store) int {
	t.Helper()
	layers, err := s.Layers()
	if err != nil {
		t.Fatal(err)
	}
	return len(layers)
}

func TestCreateLayer(t *testing.T) {
	roots := storetest.NewRoots(t)
	s := storetest.Open(t, roots)
	base := create(t, s, "", file("a", "1"))
	top := create(t, s, base.ID, file("b", "2"))
	if top.Parent != base.ID || top.ID == base.ID {
		t.Errorf("top = %+v on %+v", top, base)
	}
	dirs, err := s.LowerDirs(top.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(dirs) != 2 {
		t.Fatalf("LowerDirs = %v", dirs)
	}
	for i, want := range []string{"b", "a"} {
		if _, err := os.Stat(filepath.Join(dirs[i], want)); err != nil {
			t.Error(err)
		}
	}
	chain, err := s.Chain(top.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 2 || chain[0].ID != base.ID || chain[1].DiffID != top.DiffID || chain[1].Size != top.Size {
		t.Errorf("Chain = %+v", chain)
	}
	checkNothingStaged(t, s)
	for _, call := range []func() error{
		func() error { _, err := s.Layer("nope"); return err },
		func() error { _, err := s.Chain("nope"); return err },
		func() error { return s.DeleteLayer("nope") },
		func() error { _, err := s.OpenDiff("nope"); return err },
		func() error { _, err := s.CreateLayer(t.Context(), "nope", file("x", "")); return err },
	} {
		if err := call(); !errors.Is(err, storage.ErrLayerUnknown) {
			t.Errorf("error = %v, want ErrLayerUnknown", err)
		}
	}
}

func TestDeleteLayer(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	base := create(t, s, "", file("a", "1"))
	top := create(t, s, base.ID, file("b", "2"))
	if err := s.DeleteLayer(base.ID); !errors.Is(err, storage.ErrLayerInUse) {
		t.Errorf("delete base: %v, want ErrLayerInUse", err)
	}
	for _, id := range []string{top.ID, base.ID} {
		if err := s.DeleteLayer(id); err != nil {
			t.Error(err)
		}
	}
	if n := count(t, s); n != 0 {
		t.Errorf("%d layers are left", n)
	}
}

func TestDeduplicate(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	base := create(t, s, "", file("a", "1"))
	if again := create(t, s, "", file("a", "1")); again.ID != base.ID {
		t.Errorf("same content became another layer")
	}
	if other := create(t, s, base.ID, file("a", "1")); other.ID == base.ID || other.DiffID != base.DiffID {
		t.Errorf("same content on another parent: %+v", other)
	}
	checkNothingStaged(t, s)
	found, ok, err := s.FindLayer(base.ID, base.DiffID)
	if err != nil || !ok || found.Parent != base.ID {
		t.Errorf("FindLayer = %+v, %v, %v", found, ok, err)
	}
	if _, ok, err := s.FindLayer("", digest.FromString("none")); ok || err != nil {
		t.Errorf("FindLayer of nothing = %v, %v", ok, err)
	}
}

func TestNothingRemains(t *testing.T) {
	boom := errors.New("boom")
	precious := t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "keep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		fill func(ctx context.Context, cancel context.CancelFunc, st storage.Staging) (storage.Diff, error)
		want string
	}{
		"error": {func(_ context.Context, _ context.CancelFunc, st storage.Staging) (storage.Diff, error) {
			return storage.Diff{}, errors.Join(boom, os.Mkdir(filepath.Join(st.Upper, "d"), 0o000))
		}, "boom"},
		"cancel": {func(_ context.Context, cancel context.CancelFunc, st storage.Staging) (storage.Diff, error) {
			cancel()
			return storetest.Pack(st.Upper)
		}, context.Canceled.Error()},
		"bad digest": {func(_ context.Context, _ context.CancelFunc, st storage.Staging) (storage.Diff, error) {
			diff, err := storetest.Pack(st.Upper)
			diff.DiffID = "sha256:short"
			return diff, err
		}, "diffID"},
		"still mounted": {func(_ context.Context, _ context.CancelFunc, st storage.Staging) (storage.Diff, error) {
			if err := unix.Mount(precious, st.Merged, "", unix.MS_BIND, ""); err != nil {
				return storage.Diff{}, err
			}
			return storetest.Pack(st.Upper)
		}, "still mounted"},
		"error while mounted": {func(_ context.Context, _ context.CancelFunc, st storage.Staging) (storage.Diff, error) {
			deep := filepath.Join(st.Upper, "deep")
			return storage.Diff{}, errors.Join(boom, os.Mkdir(deep, 0o700), unix.Mount(precious, deep, "", unix.MS_BIND, ""))
		}, "boom"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, err := s.CreateLayer(ctx, "", func(ctx context.Context, st storage.Staging) (storage.Diff, error) {
				return test.fill(ctx, cancel, st)
			})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error = %v, want %q", err, test.want)
			}
			checkNothingStaged(t, s)
			if n := count(t, s); n != 0 {
				t.Errorf("%d layers were recorded", n)
			}
			if _, err := os.Stat(filepath.Join(precious, "keep")); err != nil {
				t.Errorf("a file behind a mount was removed: %v", err)
			}
		})
	}
}

func TestKilled(t *testing.T) {
	roots := storetest.NewRoots(t)
	s := storetest.Open(t, roots)
	kept := create(t, s, "", file("a", "1"))
	err := storetest.Command(t, "die", roots.Graph, roots.Run).Run()
	if err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("helper: %v, want it killed", err)
	}
	running := storetest.Command(t, "wait", roots.Graph, roots.Run)
	stdin, err := running.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := running.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	upper := make([]byte, 4096)
	n, err := stdout.Read(upper)
	if err != nil {
		t.Fatal(err)
	}
	alive := strings.TrimSpace(string(upper[:n]))

	next, err := storetest.OpenRoots(roots)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.Layer(kept.ID); err != nil {
		t.Error(err)
	}
	create(t, next, kept.ID, file("b", "2"))
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(filepath.Join(roots.Graph, "shale", "staging"))
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(filepath.Dir(alive))
	if len(entries) != 2 || entries[0].Name() != name || entries[1].Name() != name+".lock" {
		t.Errorf("staging = %v, want only that of the running process, %s", entries, alive)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	// The store must not record a layer without a digest.
	if err := running.Wait(); err == nil {
		t.Error("helper recorded a layer without a digest")
	}
	checkNothingStaged(t, next)
}

func TestConcurrent(t *testing.T) {
	roots := storetest.NewRoots(t)
	s := storetest.Open(t, roots)
	other := storetest.Command(t, "many", roots.Graph, roots.Run)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if err := createMany(t.Context(), s); err != nil {
		t.Error(err)
	}
	if err := other.Wait(); err != nil {
		t.Error(err)
	}
	if n := count(t, s); n != many+1 {
		t.Errorf("%d layers, want %d: base once and each top once", n, many+1)
	}
	checkNothingStaged(t, s)
}

func TestStateDir(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	dir, err := s.StateDir("cache/x")
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%s: %v, %v", dir, info, err)
	}
	if _, err := s.StateDir("../x"); err == nil {
		t.Error("a state directory outside is accepted")
	}
	if err := s.Sync(); err != nil {
		t.Error(err)
	}
}

func readDiff(s *storage.Store, id string) ([]byte, error) {
	r, err := s.OpenDiff(id)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

// everything makes files of every kind that a layer can have.
func everything(upper string) error {
	p := func(name string) string { return filepath.Join(upper, name) }
	return errors.Join(
		os.Mkdir(p("dir"), 0o750),
		os.WriteFile(p("dir/big"), bytes.Repeat([]byte("0123456789abcdef"), 100_000), 0o600),
		os.WriteFile(p("empty"), nil, 0o644),
		os.WriteFile(p("name\xff\n with \\ everything"), []byte("x"), 0o644),
		os.WriteFile(p(strings.Repeat("long", 60)), []byte("pax"), 0o644),
		os.Link(p("dir/big"), p("hard")),
		os.Symlink("../../etc/passwd", p("link")),
		os.WriteFile(p("setuid"), []byte("#!"), 0o755),
		os.Chown(p("setuid"), 12, 34),
		os.Chmod(p("setuid"), os.ModeSetuid|os.ModeSetgid|0o755),
		unix.Mkfifo(p("fifo"), 0o600),
		unix.Mknod(p("gone"), unix.S_IFCHR, 0),
		unix.Setxattr(p("setuid"), "security.capability", []byte{
			1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		}, 0),
		unix.Setxattr(p("empty"), "user.note", []byte("n"), 0),
	)
}

func TestOpenDiff(t *testing.T) {
	fill := map[string]func(string) error{
		"everything": everything,
		"empty":      func(string) error { return nil },
	}
	if os.Geteuid() == 0 && os.Getenv("_CONTAINERS_USERNS_CONFIGURED") == "" {
		fill["devices"] = func(upper string) error {
			return unix.Mknod(filepath.Join(upper, "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
		}
	}
	for name, write := range fill {
		t.Run(name, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			l := create(t, s, "", storetest.Fill(write))
			data, err := readDiff(s, l.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got := digest.FromBytes(data); got != l.DiffID || int64(len(data)) != l.Size {
				t.Errorf("OpenDiff gives %s, %d bytes, want %s, %d", got, len(data), l.DiffID, l.Size)
			}
			// Without the file of the tar-split, the library makes the stream.
			if err := os.Remove(tarSplit(s, l.ID)); err != nil {
				t.Fatal(err)
			}
			spooled, err := readDiff(s, l.ID)
			if err != nil && !errors.Is(err, storage.ErrCorruptLayer) {
				t.Fatal(err)
			}
			if err == nil && !cmp.Equal(data, spooled) {
				t.Error("another stream passed for the same layer")
			}
		})
	}
}

func tarSplit(s *storage.Store, id string) string {
	return filepath.Join(s.GraphRoot(), "overlay-layers", id+".tar-split.gz")
}

// While one reader is in the middle of a layer, other processes must be able to write.
func TestOpenDiffHoldsNoLock(t *testing.T) {
	s := storetest.Open(t, storetest.NewRoots(t))
	l := create(t, s, "", storetest.Fill(everything))
	r, err := s.OpenDiff(l.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.CreateLayer(t.Context(), l.ID, file("a", "1"))
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("a reader keeps a layer from being recorded")
	}
}

func TestOpenDiffCorrupt(t *testing.T) {
	const name = "f"
	tests := map[string]func(dir, split string) error{
		"changed": func(dir, _ string) error { return os.WriteFile(filepath.Join(dir, name), []byte("BAD"), 0o600) },
		"short":   func(dir, _ string) error { return os.Truncate(filepath.Join(dir, name), 1) },
		"long":    func(dir, _ string) error { return os.WriteFile(filepath.Join(dir, name), []byte("2345"), 0o600) },
		"missing": func(dir, _ string) error { return os.Remove(filepath.Join(dir, name)) },
		"symlink": func(dir, _ string) error {
			return replace(dir, name, func(p string) error { return os.Symlink("/etc/passwd", p) })
		},
		"fifo": func(dir, _ string) error {
			return replace(dir, name, func(p string) error { return unix.Mkfifo(p, 0o600) })
		},
		"directory": func(dir, _ string) error {
			return replace(dir, name, func(p string) error { return os.Mkdir(p, 0o700) })
		},
		"split short": func(_, split string) error { return os.Truncate(split, 40) },
		"split empty": func(_, split string) error { return os.Truncate(split, 0) },
		"split no gz": func(_, split string) error { return os.WriteFile(split, []byte("{}"), 0o600) },
	}
	for what, spoil := range tests {
		t.Run(what, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			l := create(t, s, "", file(name, "123"))
			dirs, err := s.LowerDirs(l.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := spoil(dirs[0], tarSplit(s, l.ID)); err != nil {
				t.Fatal(err)
			}
			if _, err := readDiff(s, l.ID); !errors.Is(err, storage.ErrCorruptLayer) {
				t.Errorf("error = %v, want ErrCorruptLayer", err)
			}
		})
	}
}

func replace(dir, name string, with func(string) error) error {
	path := filepath.Join(dir, name)
	return errors.Join(os.Remove(path), with(path))
}
