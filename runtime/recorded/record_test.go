package recorded

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRecordFormat(t *testing.T) {
	tests := []struct {
		name string
		r    Record
		mode uint32
		want string
	}{
		{"file", Record{UID: 1, GID: 2}, unix.S_IFREG | 0o4755, "1:2:4755:file"},
		{"directory", Record{UID: 0, GID: 50}, unix.S_IFDIR | 0o755, "0:50:0755:dir"},
		{"character device", Record{Type: unix.S_IFCHR, Rdev: unix.Mkdev(1, 3)}, unix.S_IFREG | 0o666, "0:0:0666:char-1-3"},
		{"block device", Record{UID: 7, Type: unix.S_IFBLK, Rdev: unix.Mkdev(259, 1<<20-1)}, unix.S_IFREG, "7:0:0000:block-259-1048575"},
		{"largest id", Record{UID: 1<<32 - 2, GID: 1<<32 - 2}, unix.S_IFREG | 0o644, "4294967294:4294967294:0644:file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := tt.r.format(tt.mode)
			if string(text) != tt.want {
				t.Errorf("written as %q, want %q", text, tt.want)
			}
			got, err := Parse(text)
			if err != nil || got != tt.r {
				t.Errorf("read as %+v, %v; want %+v", got, err, tt.r)
			}
		})
	}
}

func TestRecordDamaged(t *testing.T) {
	for _, text := range []string{"", "1", "1:", "a:b:0644:file", "-1:0:0644", "4294967296:0:0644", "0:0:0644:char-1", "0:0:0644:block-x-1"} {
		if r, err := Parse([]byte(text)); err == nil {
			t.Errorf("%q is read as %+v", text, r)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("1:2:0644:char-1-3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(r.format(unix.S_IFREG)); err != nil || again != r {
			t.Errorf("%q: %+v becomes %+v, %v", text, r, again, err)
		}
	})
}

// asRootOfOneID runs the test again as root of a user namespace with one id, in which
// owners are recorded. If the test is root already, it does nothing. It reports whether
// it has run the test.
func asRootOfOneID(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return false
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v: %s", err, out)
	}
	return true
}

func TestOwners(t *testing.T) {
	if asRootOfOneID(t) {
		return
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	o := New()
	for _, name := range []string{"file", "link"} {
		for _, want := range []ids{{r: 3, e: 4}, {}} {
			if err := o.Chown(fd, name, want.r, want.e); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var st unix.Stat_t
			if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				t.Fatal(err)
			}
			if err := o.Lookup(fd, name, &st); err != nil || st.Uid != want.r || st.Gid != want.e {
				t.Errorf("%s: %d:%d, %v; want %d:%d", name, st.Uid, st.Gid, err, want.r, want.e)
			}
		}
	}
	// Records of a layer are found by path.
	other := New()
	named := []Named{{"link", Record{UID: 9, GID: 8}}, {"gone", Record{UID: 1}}, {"../../etc", Record{UID: 1}}}
	if err := other.Load("layer", dir, func() ([]Named, error) { return named, nil }); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	st.Mode = unix.S_IFLNK
	if err := other.Lookup(fd, "link", &st); err != nil || st.Uid != 9 || st.Gid != 8 {
		t.Errorf("link of a layer: %d:%d, %v", st.Uid, st.Gid, err)
	}
}
