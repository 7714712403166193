package plain_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay/plain"
)

const ownerAttribute = "user.containers.override_stat"

// fakeOwners stores the owners of symbolic links and FIFOs by inode number. The owners of
// files and directories are in an extended attribute, or also here if beside is set.
type fakeOwners struct {
	beside bool

	mu     sync.Mutex
	owners map[uint64]string
}

func (f *fakeOwners) inAttribute(st *unix.Stat_t) bool {
	kind := st.Mode & unix.S_IFMT
	return !f.beside && (kind == unix.S_IFREG || kind == unix.S_IFDIR)
}

func at(dir int, name string) string {
	if dir == unix.AT_FDCWD {
		return name
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
}

func (f *fakeOwners) Lookup(dir int, name string, st *unix.Stat_t) error {
	var value string
	if f.inAttribute(st) {
		var buf [64]byte
		n, err := unix.Lgetxattr(at(dir, name), ownerAttribute, buf[:])
		if errors.Is(err, unix.ENODATA) {
			return nil
		}
		if err != nil {
			return err
		}
		value = string(buf[:n])
	} else {
		f.mu.Lock()
		value = f.owners[st.Ino]
		f.mu.Unlock()
	}
	if value == "" {
		return nil
	}
	_, err := fmt.Sscanf(value, "%d:%d", &st.Uid, &st.Gid)
	return err
}

func (f *fakeOwners) Copied(from int, name string, to int, newName string) error {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Fstatat(from, name, &a, unix.AT_SYMLINK_NOFOLLOW), unix.Fstatat(to, newName, &b, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owners[b.Ino] = f.owners[a.Ino]
	return nil
}

// chown records owners of paths below dir, in the form PATH=UID:GID.
func (f *fakeOwners) chown(t *testing.T, dir string, list ...string) {
	t.Helper()
	for _, entry := range list {
		name, owner, _ := strings.Cut(entry, "=")
		path := filepath.Join(dir, name)
		var st unix.Stat_t
		// Like chown(2), Lchown changes the change time.
		err := errors.Join(unix.Lchown(path, os.Getuid(), os.Getgid()), unix.Lstat(path, &st))
		if err == nil && f.inAttribute(&st) {
			err = unix.Lsetxattr(path, ownerAttribute, []byte(owner), 0)
		} else if err == nil {
			f.owners[st.Ino] = owner
		}
		if err != nil {
			t.Fatalf("chown %s: %v", path, err)
		}
	}
}

// list returns the paths with a recorded owner other than 0:0, each with the owner.
func (f *fakeOwners) list(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-mindepth", "1", "-printf", "%P\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for name := range strings.FieldsSeq(string(out)) {
		var st unix.Stat_t
		err := unix.Lstat(filepath.Join(dir, name), &st)
		st.Uid, st.Gid = 0, 0
		if err := errors.Join(err, f.Lookup(unix.AT_FDCWD, filepath.Join(dir, name), &st)); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 0 || st.Gid != 0 {
			lines = append(lines, fmt.Sprintf("%s=%d:%d", name, st.Uid, st.Gid))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// Recorded owners must be copied with files, be found if they change, and be restored.
func TestRecordedOwners(t *testing.T) {
	for _, beside := range []bool{false, true} {
		for _, tt := range []struct {
			name  string
			chown []string
			want  string // in the layer
		}{
			{"nothing", nil, ""},
			{"the same", []string{"etc/a=1:2", "etc/l=3:4", "etc=5:6"}, ""},
			{"a file", []string{"etc/b=7:8"}, "etc/b=7:8 etc=5:6"},
			{"back to root", []string{"etc/a=0:0"}, "etc=5:6"},
			{"a link", []string{"etc/l=7:8"}, "etc/l=7:8 etc=5:6"},
			{"a directory", []string{"usr=7:8"}, "usr=7:8"},
			{"a directory in it", []string{"usr/bin=7:8"}, "usr/bin=7:8"},
			{"one of two names", []string{"usr/bin/x=7:8"}, "usr/bin/x=7:8 usr/bin/y=7:8"},
		} {
			t.Run(fmt.Sprintf("%s, beside %v", tt.name, beside), func(t *testing.T) {
				owners := &fakeOwners{beside: beside, owners: map[uint64]string{}}
				lower := layer(t, base)
				below := []string{"etc/a=1:2", "etc/l=3:4", "etc=5:6"}
				owners.chown(t, lower, below...)
				l, err := plain.EmptyOf(owners).Over(lower)
				if err != nil {
					t.Fatal(err)
				}
				view := t.TempDir()
				if err := l.Link(view); err != nil {
					t.Fatal(err)
				}
				want := owners.list(t, lower)
				if diff := cmp.Diff(want, owners.list(t, view)); diff != "" {
					t.Errorf("view (-want +got):\n%s", diff)
				}
				root := t.TempDir()
				tree, err := plain.OpenTree(root, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer tree.Close()
				if err := tree.Become(t.Context(), l); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, owners.list(t, root)); diff != "" {
					t.Errorf("tree (-want +got):\n%s", diff)
				}
				tree.Settle()
				tree.Touch()
				owners.chown(t, root, tt.chown...)
				c, err := tree.Changes(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				upper := t.TempDir()
				if err := c.Into(t.Context(), upper); err != nil {
					t.Fatal(err)
				}
				if got := owners.list(t, upper); got != tt.want {
					t.Errorf("layer: %q, want %q", got, tt.want)
				}
				if tt.want == "" && c.Len() != 0 {
					t.Errorf("%d changes, want none", c.Len())
				}
				// The layer must not have changed, and the tree must equal it again.
				if diff := cmp.Diff(want, owners.list(t, lower)); diff != "" {
					t.Errorf("layer below (-want +got):\n%s", diff)
				}
				if err := tree.Become(t.Context(), l); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, owners.list(t, root)); diff != "" {
					t.Errorf("restored (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// A file must keep its recorded owner after Part.
func TestPartOwner(t *testing.T) {
	for _, beside := range []bool{false, true} {
		owners := &fakeOwners{beside: beside, owners: map[uint64]string{}}
		lower := layer(t, base)
		owners.chown(t, lower, "usr/bin/x=1:2", "etc/l=3:4")
		l, err := plain.EmptyOf(owners).Over(lower)
		if err != nil {
			t.Fatal(err)
		}
		view := t.TempDir()
		if err := l.Link(view); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"usr/bin/x", "etc/l"} {
			dir, err := os.Open(filepath.Dir(filepath.Join(view, name)))
			if err != nil {
				t.Fatal(err)
			}
			if err := plain.Part(owners, int(dir.Fd()), filepath.Base(name)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			_ = dir.Close()
		}
		owners.chown(t, view, "usr/bin/x=5:6", "etc/l=7:8")
		if got, want := owners.list(t, view), "etc/l=7:8 usr/bin/x=5:6 usr/bin/y=1:2"; got != want {
			t.Errorf("beside %v: view %q, want %q", beside, got, want)
		}
		if got, want := owners.list(t, lower), "etc/l=3:4 usr/bin/x=1:2 usr/bin/y=1:2"; got != want {
			t.Errorf("beside %v: layer %q, want %q", beside, got, want)
		}
	}
}
