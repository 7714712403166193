package overlaytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
)

// Mounter mounts m.
type Mounter func(m overlay.Mount) error

// Suite checks a Mounter. It must run in an Env.
func Suite(t *testing.T, env Env, mount Mounter) {
	s := suite{env, mount}
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"merges, topmost lower first", s.merges},
		{"writes go to the upper directory", s.writes},
		{"a stack without upper is read-only", s.readOnlyStack},
		{"a single lower is read-only", s.readOnlySingle},
		{"an upper needs no lower", s.scratch},
		{"an upper is complete in itself", s.selfContained},
		{"an upper serves as a lower", s.reuse},
		{"directories are not redirected", s.noRedirect},
		{"volatile", s.volatile},
		{"special characters in paths", s.specialPaths},
		{"long paths", s.longPaths},
		{"150 lowers", func(t *testing.T) { s.deep(t, 150) }},
		{"300 lowers", func(t *testing.T) { s.deep(t, 300) }},
		{"the most lowers", func(t *testing.T) { s.deep(t, overlay.MaxLowers) }},
		{"too many lowers", s.tooDeep},
		{"invalid mounts", s.invalid},
		{"a missing lower is named", s.missing},
	} {
		t.Run(c.name, c.test)
	}
}

type suite struct {
	env   Env
	mount Mounter
}

// stack creates the directories of a Mount with n lower directories in base. Lower
// directory i, counted from the bottom, has a file "i" and a file "top", both with the
// content i.
func (s suite) stack(t *testing.T, base string, n int) overlay.Mount {
	t.Helper()
	m := overlay.Mount{
		Upper:     dir(t, base, "upper"),
		Work:      dir(t, base, "work"),
		Target:    dir(t, base, "merged"),
		UserXattr: s.env.UserXattr,
	}
	for i := range n {
		l := dir(t, base, fmt.Sprintf("l%d", i))
		text := fmt.Sprint(i)
		put(t, filepath.Join(l, text), text)
		put(t, filepath.Join(l, "top"), text)
		m.Lower = append([]string{l}, m.Lower...)
	}
	return m
}

// up mounts m and unmounts it at the end of the test.
func (s suite) up(t *testing.T, m overlay.Mount) {
	t.Helper()
	if err := s.mount(m); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := overlay.Unmount(m.Target); err != nil && !errors.Is(err, overlay.ErrNotMounted) {
			t.Error(err)
		}
	})
}

func (s suite) merges(t *testing.T) {
	m := s.stack(t, t.TempDir(), 3)
	s.up(t, m)
	if diff := cmp.Diff([]string{"0", "1", "2", "top"}, names(t, m.Target)); diff != "" {
		t.Error(diff)
	}
	if got := get(t, filepath.Join(m.Target, "top")); got != "2" {
		t.Errorf("top shows layer %s", got)
	}
}

func (s suite) writes(t *testing.T) {
	m := s.stack(t, t.TempDir(), 2)
	mkdir(t, filepath.Join(m.Lower[1], "d"))
	put(t, filepath.Join(m.Lower[1], "d/old"), "old")
	s.up(t, m)
	put(t, filepath.Join(m.Target, "new"), "new")
	must(t, os.Remove(filepath.Join(m.Target, "0")))
	must(t, os.RemoveAll(filepath.Join(m.Target, "d")))
	mkdir(t, filepath.Join(m.Target, "d"))
	must(t, overlay.Unmount(m.Target))

	if got := get(t, filepath.Join(m.Upper, "new")); got != "new" {
		t.Errorf("new is %q", got)
	}
	var st unix.Stat_t
	must(t, unix.Lstat(filepath.Join(m.Upper, "0"), &st))
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("no whiteout: mode %#o, device %d", st.Mode, st.Rdev)
	}
	if got := xattr(t, filepath.Join(m.Upper, "d"), s.prefix()+"opaque"); got != "y" {
		t.Errorf("opaque is %q", got)
	}
	if got := get(t, filepath.Join(m.Lower[1], "0")); got != "0" {
		t.Errorf("lower changed: %q", got)
	}
}

func (s suite) readOnlyStack(t *testing.T) {
	m := s.stack(t, t.TempDir(), 2)
	m.Upper, m.Work = "", ""
	s.up(t, m)
	s.refusesWrites(t, m.Target)
}

func (s suite) readOnlySingle(t *testing.T) {
	m := s.stack(t, t.TempDir(), 1)
	m.Upper, m.Work = "", ""
	s.up(t, m)
	if got := get(t, filepath.Join(m.Target, "top")); got != "0" {
		t.Errorf("top is %q", got)
	}
	s.refusesWrites(t, m.Target)
}

func (s suite) refusesWrites(t *testing.T, target string) {
	t.Helper()
	err := os.WriteFile(filepath.Join(target, "x"), nil, 0o600)
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("write: %v, want EROFS", err)
	}
}

func (s suite) scratch(t *testing.T) {
	m := s.stack(t, t.TempDir(), 0)
	s.up(t, m)
	put(t, filepath.Join(m.Target, "kept"), "x")
	put(t, filepath.Join(m.Target, "gone"), "x")
	must(t, os.Remove(filepath.Join(m.Target, "gone")))
	must(t, overlay.Unmount(m.Target))
	if diff := cmp.Diff([]string{"kept"}, names(t, m.Upper)); diff != "" {
		t.Error(diff)
	}
}

func (s suite) selfContained(t *testing.T) {
	m := s.stack(t, t.TempDir(), 1)
	data := strings.Repeat("data", 1000)
	put(t, filepath.Join(m.Lower[0], "f"), data)
	s.up(t, m)
	must(t, os.Chmod(filepath.Join(m.Target, "f"), 0o400))
	must(t, overlay.Unmount(m.Target))
	if got := get(t, filepath.Join(m.Upper, "f")); got != data {
		t.Errorf("a change of mode copied up %d bytes of %d", len(got), len(data))
	}
}

func (s suite) reuse(t *testing.T) {
	base := t.TempDir()
	m := s.stack(t, base, 2)
	s.up(t, m)
	put(t, filepath.Join(m.Target, "new"), "new")
	must(t, os.Remove(filepath.Join(m.Target, "0")))
	must(t, overlay.Unmount(m.Target))

	next := s.stack(t, dir(t, base, "next"), 0)
	next.Lower = append([]string{m.Upper}, m.Lower...)
	s.up(t, next)
	if diff := cmp.Diff([]string{"1", "new", "top"}, names(t, next.Target)); diff != "" {
		t.Error(diff)
	}
}

func (s suite) noRedirect(t *testing.T) {
	m := s.stack(t, t.TempDir(), 1)
	mkdir(t, filepath.Join(m.Lower[0], "d"))
	s.up(t, m)
	err := os.Rename(filepath.Join(m.Target, "d"), filepath.Join(m.Target, "e"))
	if !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename of a lower directory: %v, want EXDEV", err)
	}
}

func (s suite) volatile(t *testing.T) {
	m := s.stack(t, t.TempDir(), 1)
	m.Volatile = true
	s.up(t, m)
	options := strings.Split(mountOptions(t, m.Target), ",")
	// Linux 6.6 and later show volatile as fsync=volatile.
	if !slices.Contains(options, "volatile") && !slices.Contains(options, "fsync=volatile") {
		t.Errorf("mounted with %s", options)
	}
	put(t, filepath.Join(m.Target, "new"), "new")
	must(t, overlay.Unmount(m.Target))
	if got := get(t, filepath.Join(m.Upper, "new")); got != "new" {
		t.Errorf("new is %q", got)
	}
}

func (s suite) specialPaths(t *testing.T) {
	for _, name := range []string{"a:b", "a,b", `a\b`, `a\:b`, `a\\,b`, "a b", "a=b", ":", ",", `\`, "é\xff", "+a", "a#b", `a"b`} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			m := s.stack(t, dir(t, t.TempDir(), name), 2)
			s.up(t, m)
			put(t, filepath.Join(m.Target, "new"), "new")
			if diff := cmp.Diff([]string{"0", "1", "new", "top"}, names(t, m.Target)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func (s suite) longPaths(t *testing.T) {
	base := t.TempDir()
	for range 10 {
		base = dir(t, base, strings.Repeat("x", 250))
	}
	m := s.stack(t, base, 3)
	s.up(t, m)
	if diff := cmp.Diff([]string{"0", "1", "2", "top"}, names(t, m.Target)); diff != "" {
		t.Error(diff)
	}
}

func (s suite) deep(t *testing.T, n int) {
	m := s.stack(t, dir(t, t.TempDir(), strings.Repeat("long", 16)), n)
	cwd, err := os.Getwd()
	must(t, err)
	s.up(t, m)
	if got := len(names(t, m.Target)); got != n+1 {
		t.Errorf("%d names, want %d", got, n+1)
	}
	if got := get(t, filepath.Join(m.Target, "top")); got != fmt.Sprint(n-1) {
		t.Errorf("top shows layer %s of %d", got, n)
	}
	put(t, filepath.Join(m.Target, "new"), "new")
	must(t, os.Remove(filepath.Join(m.Target, "0")))
	link, err := os.Readlink("/proc/self/cwd")
	must(t, err)
	if link != cwd {
		t.Errorf("working directory moved from %s to %s", cwd, link)
	}
}

func (s suite) tooDeep(t *testing.T) {
	m := overlay.Mount{Target: t.TempDir(), UserXattr: s.env.UserXattr}
	for i := range overlay.MaxLowers + 1 {
		m.Lower = append(m.Lower, fmt.Sprintf("/l%d", i))
	}
	err := s.mount(m)
	if !errors.Is(err, overlay.ErrTooManyLowers) || !strings.Contains(err.Error(), "500") {
		t.Errorf("got %v", err)
	}
}

func (s suite) invalid(t *testing.T) {
	for name, m := range map[string]overlay.Mount{
		"nothing to mount":   {Target: "/t"},
		"upper without work": {Lower: []string{"/l"}, Upper: "/u", Target: "/t"},
		"work without upper": {Lower: []string{"/l"}, Work: "/w", Target: "/t"},
		"relative lower":     {Lower: []string{"l", "/m"}, Target: "/t"},
		"relative upper":     {Lower: []string{"/l"}, Upper: "u", Work: "/w", Target: "/t"},
		"relative target":    {Lower: []string{"/l", "/m"}, Target: "t"},
		"no target":          {Lower: []string{"/l", "/m"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.mount(m); !errors.Is(err, overlay.ErrInvalidMount) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func (s suite) missing(t *testing.T) {
	m := s.stack(t, t.TempDir(), 2)
	gone := filepath.Join(filepath.Dir(m.Target), "gone")
	m.Lower = append(m.Lower, gone)
	if err := s.mount(m); !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v, want ENOENT", err)
	}
}

func (s suite) prefix() string {
	if s.env.UserXattr {
		return "user.overlay."
	}
	return "trusted.overlay."
}
