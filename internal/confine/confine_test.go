package confine

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// plant creates a tree with all kinds of links, and a file beside it that no path may
// reach.
func plant(t *testing.T) (root int, dir string) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "root")
	for _, d := range []string{"a/b/c", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range map[string]string{"root/a/b/file": "inside", "root/etc/passwd": "inside", "etc": "outside"} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"abs": "/etc", "up": "../../../../etc/passwd", "a/rel": "../etc", "a/b/back": "../..", "dangling": "nowhere", "loop": "loop",
		"out": "../etc", "slash": "/", "chain": "a/rel/passwd", "deep": "a/b/back/a/rel", "proc": "/proc/self/root", "dirslash": "a/b/",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return int(f.Fd()), dir
}

// answer describes the result of opening a path: mode and inode of the file, or the
// error.
func answer(fd int, err error) string {
	if err != nil {
		return err.Error()
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err.Error()
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		return fmt.Sprintf("stays open over exec (%v)", err)
	}
	return fmt.Sprintf("%o %d", st.Mode, st.Ino)
}

// TestStepwise compares stepwise with openat2(2).
func TestStepwise(t *testing.T) {
	root, _ := plant(t)
	paths := []string{
		"", ".", "..", "/", "a", "a/", "a/b/file", "a/b/file/", "a/b/file/x", "a//b/./c", "a/../etc", "a/../../etc", "/etc/passwd", "abs",
		"abs/", "abs/passwd", "up", "a/rel", "a/rel/passwd", "a/b/back", "a/b/back/etc", "dangling", "dangling/x", "loop", "loop/x", "out",
		"slash", "slash/etc", "chain", "deep", "deep/passwd", "fifo", "fifo/x", "missing", "missing/x", "a/missing", "dirslash", "dirslash/c",
		"a/b/c/../file",
	}
	for _, resolve := range []uint64{
		Beneath, InRoot, Beneath | NoSymlinks, InRoot | NoSymlinks | NoMagicLinks, InRoot | NoMagicLinks, Beneath | NoXDev, InRoot | NoXDev | NoMagicLinks,
	} {
		for _, flags := range []int{
			unix.O_PATH, unix.O_PATH | unix.O_NOFOLLOW, unix.O_RDONLY | unix.O_NONBLOCK, unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK,
			unix.O_PATH | unix.O_DIRECTORY, unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW,
		} {
			for _, path := range paths {
				want := answer(unix.Openat2(root, path, &unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: resolve}))
				if got := answer(stepwise(root, path, flags|unix.O_CLOEXEC, 0, resolve)); got != want {
					t.Errorf("%q, flags %#x, resolve %#x: %s, want %s", path, flags, resolve, got, want)
				}
				if got := answer(Open(root, path, flags, 0, resolve)); got != want {
					t.Errorf("Open: %q, flags %#x, resolve %#x: %s, want %s", path, flags, resolve, got, want)
				}
			}
		}
	}
}

func TestStepwiseCreates(t *testing.T) {
	for _, path := range []string{"new", "a/new", "abs/new", "dangling", "missing/new", "../new", "etc/passwd", "a"} {
		for _, flags := range []int{0, unix.O_EXCL, unix.O_NOFOLLOW} {
			flags |= unix.O_CREAT | unix.O_WRONLY
			made := map[string]string{}
			for way, open := range map[string]func(int, string, int, uint32, uint64) (int, error){"openat2": Open, "stepwise": stepwise} {
				root, dir := plant(t)
				fd, err := open(root, path, flags|unix.O_CLOEXEC, 0o640, InRoot)
				made[way] = fmt.Sprint(err)
				if err == nil {
					name, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
					rel, _ := filepath.Rel(dir, name)
					var st unix.Stat_t
					_ = unix.Fstat(fd, &st)
					made[way] = fmt.Sprintf("%s %o", rel, st.Mode)
					_ = unix.Close(fd)
				}
			}
			if made["openat2"] != made["stepwise"] {
				t.Errorf("%q, flags %#x: %s, want %s", path, flags, made["stepwise"], made["openat2"])
			}
		}
	}
}

// Magic links of procfs lead out of every root and must be refused.
func TestStepwiseMagicLinks(t *testing.T) {
	proc, err := os.Open("/proc")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = proc.Close() }()
	for _, path := range []string{"self/root", "self/root/etc", "self/cwd", "self/exe"} {
		want := answer(unix.Openat2(int(proc.Fd()), path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: InRoot | NoMagicLinks}))
		if got := answer(stepwise(int(proc.Fd()), path, unix.O_PATH|unix.O_CLOEXEC, 0, InRoot|NoMagicLinks)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// With NoXDev, a path must not cross into another mount.
func TestStepwiseMounts(t *testing.T) {
	root, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	for _, path := range []string{"proc", "proc/version", "etc/passwd"} {
		want := answer(unix.Openat2(int(root.Fd()), path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: Beneath | NoXDev}))
		if got := answer(stepwise(int(root.Fd()), path, unix.O_PATH|unix.O_CLOEXEC, 0, Beneath|NoXDev)); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestOpenWantsRoot(t *testing.T) {
	if _, err := Open(unix.AT_FDCWD, "/etc", unix.O_PATH, 0, NoSymlinks); err != unix.EINVAL { //nolint:errorlint // a bare errno
		t.Errorf("Open outside a root: %v", err)
	}
}
