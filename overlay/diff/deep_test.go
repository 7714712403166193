package diff_test

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
	"github.com/shale-build/shale/overlay/diff"
)

// deep creates a chain of nested directories, as a step can with chdir(2). It holds only
// one file descriptor at a time. Each name has 100 bytes.
func deep(t *testing.T, dir string, levels int) {
	t.Helper()
	name := strings.Repeat("d", 100)
	t.Cleanup(func() { must(t, rmtree.Remove(dir+"/"+name)) }) // os.RemoveAll cannot do this
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range levels {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
}

// A tree that is too deep for an archive, or for the file descriptors of the process,
// must give an error of one line. No file descriptor may stay open.
func TestDeep(t *testing.T) {
	for _, c := range []struct {
		name   string
		levels int
		// limit is the limit of file descriptors, 0 for the limit of the process.
		limit       uint64
		pack, clone error
	}{
		{"longer than PATH_MAX", 60, 0, nil, nil},
		{"longer than a layer's paths", 200, 0, diff.ErrPathTooLong, nil},
		{"more levels than descriptors", 150, 128, unix.EMFILE, unix.EMFILE},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, copied := t.TempDir(), t.TempDir()
			deep(t, dir, c.levels)
			t.Cleanup(func() { must(t, rmtree.Remove(copied+"/"+strings.Repeat("d", 100))) })
			if c.limit > 0 {
				limit(t, c.limit)
			}
			layer, packErr := diff.Pack(t.Context(), diff.Options{Upper: dir})
			if packErr == nil {
				must(t, layer.TarSplit.Close())
			}
			checkFDs(t)
			cloneErr := diff.Clone(t.Context(), dir, copied)
			checkFDs(t)
			if !errors.Is(packErr, c.pack) || !errors.Is(cloneErr, c.clone) {
				t.Errorf("pack: %v\nclone: %v", packErr, cloneErr)
			}
			for _, err := range []error{packErr, cloneErr} {
				if err != nil && len(err.Error()) > 1024 {
					t.Errorf("an error of %d bytes: %.300s", len(err.Error()), err)
				}
				if errors.Is(err, unix.EMFILE) && !strings.Contains(err.Error(), "ulimit -n") {
					t.Errorf("no advice: %v", err)
				}
			}
		})
	}
}

// limit lowers the limit of file descriptors until the end of the test.
func limit(t *testing.T, n uint64) {
	t.Helper()
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: was.Max}))
	t.Cleanup(func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) })
}
