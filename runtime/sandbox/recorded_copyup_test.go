package sandbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/sandbox"
)

// Symbolic links and FIFOs of a lower directory must keep their owners when an operation
// copies them up. The step must see these owners, and they must be recorded in the upper
// directory.
func TestRecordedCopyUp(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	lower, mounts := usrRootfs(t)
	s := recordedSpec(filepath.Join(filepath.Dir(lower), "merged"), "")
	files := filepath.Join(lower, "files")
	for _, dir := range []string{s.Rootfs, files} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	make := func(name string, uid, gid uint32, fn func(name string) error) {
		t.Helper()
		err := fn(filepath.Join(files, name))
		if err == nil && uid+gid > 0 {
			err = s.Owners.Chown(unix.AT_FDCWD, filepath.Join(files, name), uid, gid)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	link := func(name string) error { return os.Symlink("none", name) }
	fifo := func(name string) error { return unix.Mkfifo(name, 0o600) }
	linkTo := func(target string) func(string) error {
		return func(name string) error { return os.Symlink(target, name) }
	}
	make("a", 5, 6, link)
	make("b", 7, 8, link)
	make("plain", 0, 0, link)
	make("c", 7, 8, link)
	make("d", 9, 9, link)
	make("file", 0, 0, func(name string) error { return os.WriteFile(name, nil, 0o600) })
	for _, name := range []string{"hard", "touched", "descriptor", "mode", "mode-descriptor"} {
		make(name, 5, 6, fifo)
		make("to-"+name, 0, 0, linkTo(name))
	}
	make("named", 5, 6, link)

	s.Upper = filepath.Join(filepath.Dir(lower), "upper")
	work := filepath.Join(filepath.Dir(lower), "work")
	for _, dir := range []string{s.Upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("overlay", s.Rootfs, "overlay", 0, "userxattr,lowerdir="+lower+",upperdir="+s.Upper+",workdir="+work); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(s.Rootfs, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s.Mounts = append(mounts, sandbox.Mount{Source: exe, Target: "/hostile", ReadOnly: true})
	s.Args = []string{"/usr/bin/perl", "-e", `exec {"/hostile"} "hostile", @ARGV`, "keeps", ""}
	want := map[string]string{
		"a": "7:8", "b": "5:6", "plain": "7:8", "c": "0:0", "d": "0:0", "file": "9:9",
		"hard": "5:6", "hard-linked": "5:6", "touched": "5:6", "descriptor": "5:6", "mode": "5:6", "mode-descriptor": "5:6", "named": "5:6",
	}
	code, out, err := runRecorded(t, s)
	if err != nil || code != 0 {
		t.Fatalf("code %d, %v\n%s", code, err, out)
	}
	seen := map[string]string{}
	for line := range strings.Lines(out) {
		name, owner, _ := strings.Cut(strings.TrimSpace(line), " ")
		seen[name] = owner
	}
	for name, owner := range want {
		if seen[name] != owner {
			t.Errorf("the step sees %s of %s, want %s", name, seen[name], owner)
		}
		var st unix.Stat_t
		path := filepath.Join(s.Upper, "files", name)
		err := unix.Lstat(path, &st)
		if err == nil {
			_, _, err = s.Owners.OwnerOf(unix.AT_FDCWD, path, &st)
		}
		// Without a record, the file has the owner of the test process.
		if got := fmt.Sprintf("%d:%d", st.Uid, st.Gid); err != nil || got != owner {
			t.Errorf("%s of %s is in the layer, %v, want %s", name, got, err, owner)
		}
	}
}

// copyUp performs all operations that copy a file of a lower directory up.
func copyUp(string) error {
	if err := os.Chdir("/files"); err != nil {
		return err
	}
	const here = unix.AT_FDCWD
	open := func(name string, flags int) int {
		fd, err := unix.Open(name, flags, 0)
		if err != nil {
			fmt.Println("open", name, err)
		}
		return fd
	}
	times := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	utimens := func(fd int, path string) error {
		at, flags := uintptr(0), 0
		if path == "" {
			empty, err := unix.BytePtrFromString("")
			if err != nil {
				return err
			}
			at, flags = uintptr(unsafe.Pointer(empty)), unix.AT_EMPTY_PATH
		}
		_, _, errno := syscall.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), at, uintptr(unsafe.Pointer(&times[0])), uintptr(flags), 0, 0)
		if errno != 0 {
			return errno
		}
		return nil
	}
	for _, err := range []error{
		unix.Renameat2(here, "a", here, "b", unix.RENAME_EXCHANGE),
		unix.Renameat2(here, "plain", here, "c", unix.RENAME_EXCHANGE),
		unix.Renameat2(here, "d", here, "file", unix.RENAME_EXCHANGE),
		unix.Linkat(here, "to-hard", here, "hard-linked", unix.AT_SYMLINK_FOLLOW),
		unix.UtimesNanoAt(here, "to-touched", times, 0),
		utimens(open("descriptor", unix.O_RDWR), "none"),
		unix.Chmod("to-mode", 0o644),
		unix.Fchmod(open("mode-descriptor", unix.O_RDWR), 0o644),
		utimens(open("named", unix.O_PATH|unix.O_NOFOLLOW), ""),
	} {
		if err != nil {
			return err
		}
	}
	list, err := os.ReadDir(".")
	if err != nil {
		return err
	}
	for _, e := range list {
		var st unix.Stat_t
		if err := unix.Lstat(e.Name(), &st); err != nil {
			return err
		}
		fmt.Printf("%s %d:%d\n", e.Name(), st.Uid, st.Gid)
	}
	return nil
}
