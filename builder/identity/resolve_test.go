package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local/beneath"
)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n" +
		"big:x:4294967296:0::/:/bin/sh\nminus:x:-1:0::/:/bin/sh\n# comment\n\nbroken\n1234:x:77:78::/n:/bin/sh\n"
	group = "root:x:0:\ndaemon:x:1:\nuser:x:1000:\nfirst:x:2000:user,daemon\nsecond:x:3000:user\nhuge:x:99999999999:\n"
)

func plant(t testing.TB, passwd, group string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"passwd": passwd, "group": group} {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestResolve(t *testing.T) {
	root := plant(t, passwd, group)
	tests := map[string]User{
		"":            {0, 0, []uint32{0}, "/root", "root"},
		"root":        {0, 0, []uint32{0}, "/root", "root"},
		"0":           {0, 0, []uint32{0}, "/root", "root"},
		"user":        {1000, 1000, []uint32{1000, 2000, 3000}, "/home/user", "user"},
		"1000":        {1000, 1000, []uint32{1000, 2000, 3000}, "/home/user", "user"},
		"user:first":  {1000, 2000, []uint32{2000}, "/home/user", "user"},
		"user:7":      {1000, 7, []uint32{7}, "/home/user", "user"},
		"1000:second": {1000, 3000, []uint32{3000}, "/home/user", "user"},
		"5000":        {5000, 0, []uint32{0}, "/", ""},
		"5000:6000":   {5000, 6000, []uint32{6000}, "/", ""},
		"daemon":      {1, 1, []uint32{1, 2000}, "/", "daemon"},
	}
	for spec, want := range tests {
		got, err := Resolve(root, spec)
		if err != nil {
			t.Errorf("%q: %v", spec, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", spec, diff)
		}
	}
}

func TestResolveErrors(t *testing.T) {
	root := plant(t, passwd, group)
	tests := map[string]string{
		"foo":        "unable to find user foo: no matching entries in passwd file",
		"user:foo":   "unable to find group foo: no matching entries in group file",
		"4294967295": user.ErrRange.Error(),
		"2147483648": user.ErrRange.Error(),
		"-1":         user.ErrRange.Error(),
		"0:-1":       user.ErrRange.Error(),
		"big":        user.ErrRange.Error(),
		"minus":      user.ErrRange.Error(),
	}
	for spec, want := range tests {
		if got, err := Resolve(root, spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %s", spec, got, err, want)
		}
	}
}

func TestEmptyRoot(t *testing.T) {
	root := t.TempDir()
	got, err := Resolve(root, "12:34")
	if want := (User{12, 34, []uint32{34}, "/", ""}); err != nil || cmp.Diff(want, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Resolve(root, "name"); err == nil {
		t.Error("a name was found in nothing")
	}
	if _, _, found, err := LookupUser(root, "name"); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}

func TestLookup(t *testing.T) {
	root := plant(t, passwd, group)
	if uid, gid, found, err := LookupUser(root, "1234"); uid != 77 || gid != 78 || !found || err != nil {
		t.Errorf("%d:%d %v %v", uid, gid, found, err)
	}
	if gid, found, err := LookupGroup(root, "second"); gid != 3000 || !found || err != nil {
		t.Errorf("%d %v %v", gid, found, err)
	}
	if _, _, _, err := LookupUser(root, "big"); !errors.Is(err, user.ErrRange) {
		t.Errorf("error %v", err)
	}
}

// TestHostileDatabases looks up names in files that are not regular user databases
// (CVE-2024-9676).
func TestHostileDatabases(t *testing.T) {
	outside := plant(t, "evil:x:77:77::/:\n", "")
	replace := func(t *testing.T, with func(path string) error) string {
		root := plant(t, passwd, group)
		p := filepath.Join(root, "etc/passwd")
		if err := errors.Join(os.Remove(p), with(p)); err != nil {
			t.Fatal(err)
		}
		return root
	}
	tests := map[string]struct {
		with func(string) error
		want error // nil if the file does not exist inside the root
	}{
		"fifo":      {func(p string) error { return unix.Mkfifo(p, 0o644) }, beneath.ErrNotRegular},
		"directory": {func(p string) error { return os.Mkdir(p, 0o755) }, beneath.ErrNotRegular},
		"huge": {func(p string) error {
			return errors.Join(os.WriteFile(p, nil, 0o644), os.Truncate(p, 1<<40))
		}, ErrTooLarge},
		"link outside": {func(p string) error { return os.Symlink(outside+"/etc/passwd", p) }, nil},
		"link up":      {func(p string) error { return os.Symlink(strings.Repeat("../", 40)+outside+"/etc/passwd", p) }, nil},
		"loop":         {func(p string) error { return os.Symlink("passwd", p) }, unix.ELOOP},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := replace(t, tt.with)
			done := make(chan error, 1)
			go func() {
				_, _, found, err := LookupUser(root, "evil")
				if found {
					err = errors.New("found outside the root")
				}
				done <- err
			}()
			select {
			case err := <-done:
				if !errors.Is(err, tt.want) {
					t.Errorf("error %v, want %v", err, tt.want)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("look-up hangs")
			}
		})
	}
}

func FuzzResolve(f *testing.F) {
	f.Add("user:first", []byte(passwd), []byte(group))
	f.Add("4294967296", []byte("a:b:c"), []byte(":::"))
	f.Fuzz(func(t *testing.T, spec string, passwd, group []byte) {
		u, err := resolve(spec, passwd, group)
		if err != nil {
			return
		}
		if u.UID > 1<<31-1 || u.GID > 1<<31-1 || len(u.AdditionalGIDs) == 0 {
			t.Errorf("%q: %+v", spec, u)
		}
	})
}
