package sandbox_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/sandbox"
)

// snapshot lists the files of a tree with their modes and modification times.
func snapshot(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := os.Lstat(p)
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		fmt.Fprintf(&b, "%s %s %s\n", rel, fi.Mode(), fi.ModTime().UTC().Format(time.RFC3339Nano))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// age sets an old modification time with odd nanoseconds on every directory.
func age(t *testing.T, root string) time.Time {
	t.Helper()
	old := time.Unix(1500000000, 123456789)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chtimes(p, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	return old
}

func hostsFile(t *testing.T) string {
	t.Helper()
	f := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(f, []byte("127.0.0.1 localhost\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}

// everything returns a Spec that needs all kinds of stubs, including nested ones.
func everything(t *testing.T, root, script string) sandbox.Spec {
	s := shell(root, script)
	f := hostsFile(t)
	s.Hosts, s.ResolvConf = f, f
	s.Mounts = []sandbox.Mount{
		{Source: f, Target: "/run/secrets/one", ReadOnly: true},
		{Source: t.TempDir(), Target: "/var/cache/apt"},
		{Type: sandbox.Tmpfs, Target: "/var/tmp/x/y"},
		{Source: f, Target: "/var/tmp/z", ReadOnly: true},
	}
	return s
}

func TestStubsLeaveNoTrace(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	age(t, root)
	before := snapshot(t, root)
	output(t, r, everything(t, root, "test -s /etc/hosts && touch /var/cache/apt/x /var/tmp/x/y/z"))
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Error(diff)
	}
	s := everything(t, root, "")
	s.Args = []string{"/missing"}
	if _, _, err := run(t, r, s); err == nil {
		t.Error("no error for a missing command")
	}
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Errorf("after a failed start: %s", diff)
	}
}

func TestStubsLeaveNoTraceOnOverlay(t *testing.T) {
	r, lower := newRunner(t), newRootfs(t)
	age(t, lower)
	merged, upper := mountOverlay(t, lower)
	before := snapshot(t, merged)
	output(t, r, everything(t, merged, "true"))
	if diff := cmp.Diff(before, snapshot(t, merged)); diff != "" {
		t.Error(diff)
	}
	err := filepath.WalkDir(upper, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			t.Errorf("%s left in the upper directory", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func mountOverlay(t *testing.T, lower string) (merged, upper string) {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	merged, upper = filepath.Join(dir, "merged"), filepath.Join(dir, "upper")
	if err := os.Chtimes(upper, time.Unix(1500000000, 123456789), time.Unix(1500000000, 123456789)); err != nil {
		t.Fatal(err)
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, upper, filepath.Join(dir, "work"))
	if entered.Mode != "root" {
		opts += ",userxattr"
	}
	if err := unix.Mount("overlay", merged, "overlay", 0, opts); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, 0); err != nil {
			t.Errorf("unmount overlay: %v", err)
		}
	})
	return merged, upper
}

// A file that the command changes must keep the time of that change.
func TestCommandsOwnTimesStay(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	old := age(t, root)
	start := time.Now().Add(-20 * time.Millisecond)
	output(t, r, everything(t, root, "touch /etc/new; touch -d @1234567890 /home/x; touch -d @1234567890 /home; touch /var/tmp/kept"))
	for name, check := range map[string]func(time.Time) bool{
		"etc":  func(m time.Time) bool { return m.After(start) },
		"home": func(m time.Time) bool { return m.Equal(time.Unix(1234567890, 0)) },
		"tmp":  func(m time.Time) bool { return m.Equal(old) },
	} {
		fi, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if !check(fi.ModTime()) {
			t.Errorf("%s has time %v", name, fi.ModTime())
		}
	}
	if _, err := os.Stat(filepath.Join(root, "var/tmp/kept")); err != nil {
		t.Errorf("the command's file is gone: %v", err)
	}
	for _, name := range []string{"var/tmp/z", "var/tmp/x", "var/cache", "run", "etc/hosts"} {
		if _, err := os.Lstat(filepath.Join(root, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestExistingTargetsStay(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	for _, f := range []string{"etc/hosts", "etc/resolv.conf"} {
		if err := os.WriteFile(filepath.Join(root, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"proc", "sys", "dev", "var/cache/apt"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	age(t, root)
	before := snapshot(t, root)
	output(t, r, everything(t, root, "true"))
	if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
		t.Error(diff)
	}
}

// The command may replace a stub or its parents. Files outside the root file system must
// not be removed (CVE-2024-23652).
func TestReplacedStubs(t *testing.T) {
	r, root := newRunner(t), newRootfs(t)
	victim := t.TempDir()
	for _, d := range []string{"apt", "empty", "one"} {
		if err := os.Mkdir(filepath.Join(victim, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	before := snapshot(t, victim)
	script := fmt.Sprintf("mv /var/cache /var/old; ln -s %[1]s /var/cache; mv /run /run2; ln -s %[1]s /run; ln -s %[1]s /run2/more", victim)
	output(t, r, everything(t, root, script))
	if diff := cmp.Diff(before, snapshot(t, victim)); diff != "" {
		t.Error(diff)
	}
	for _, l := range []string{"var/cache", "run"} {
		if got, err := os.Readlink(filepath.Join(root, l)); err != nil || got != victim {
			t.Errorf("%s: %q, %v", l, got, err)
		}
	}
}

func TestLinksInImage(t *testing.T) {
	tests := []struct {
		name   string
		link   string
		target string
		fails  bool
	}{
		{name: "etc to the root", link: "etc", target: "/"},
		{name: "etc upwards", link: "etc", target: "../../../../.."},
		{name: "hosts to outside", link: "etc/hosts", target: "OUT/hosts"},
		{name: "hosts to nowhere", link: "etc/hosts", target: "../run/systemd/hosts"},
		{name: "mount target", link: "run", target: "OUT"},
		{name: "mount target upwards", link: "run", target: "../../../../../../..OUT"},
		{name: "loop", link: "run", target: "run", fails: true},
		{name: "proc", link: "proc", target: "/tmp", fails: true},
		{name: "proc to outside", link: "proc", target: "OUT", fails: true},
		{name: "sys", link: "sys", target: "/tmp", fails: true},
		{name: "dev", link: "dev", target: "OUT", fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, root := newRunner(t), newRootfs(t)
			out := t.TempDir()
			link := filepath.Join(root, tt.link)
			if err := os.RemoveAll(link); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(strings.ReplaceAll(tt.target, "OUT", out), link); err != nil {
				t.Fatal(err)
			}
			age(t, root)
			age(t, out)
			before, outside := snapshot(t, root), snapshot(t, out)
			s := everything(t, root, "cat /etc/hosts /run/secrets/one")
			_, got, err := run(t, r, s)
			if (err != nil) != tt.fails {
				t.Errorf("error %v, output %s", err, got)
			}
			if want := "127.0.0.1 localhost\n127.0.0.1 localhost\n"; err == nil && got != want {
				t.Errorf("output %q", got)
			}
			if diff := cmp.Diff(outside, snapshot(t, out)); diff != "" {
				t.Errorf("outside: %s", diff)
			}
			if diff := cmp.Diff(before, snapshot(t, root)); diff != "" {
				t.Errorf("root filesystem: %s", diff)
			}
		})
	}
}
