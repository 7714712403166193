package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tonistiigi/fsutil"
	"golang.org/x/sys/unix"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plant creates files with their paths as content. A path with " -> " is a symbolic link,
// and a path that ends in a slash is a directory.
func plant(t testing.TB, paths ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range paths {
		if name, target, ok := cut(p); ok {
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			must(t, os.Symlink(target, filepath.Join(dir, name)))
			continue
		}
		write(t, dir, p, p)
	}
	return dir
}

func cut(p string) (name, target string, ok bool) {
	for i := range p {
		if len(p) > i+4 && p[i:i+4] == " -> " {
			return p[:i], p[i+4:], true
		}
	}
	return "", "", false
}

func write(t testing.TB, dir, name, content string) {
	t.Helper()
	p := filepath.Join(dir, name)
	if name[len(name)-1] == '/' {
		must(t, os.MkdirAll(p, 0o755))
		return
	}
	must(t, os.MkdirAll(filepath.Dir(p), 0o755))
	must(t, os.WriteFile(p, []byte(content), 0o644))
}

func open(t testing.TB, o Options) *Tree {
	t.Helper()
	return openKeeping(t, maxKept, o)
}

// openKeeping opens a tree that keeps at most kept entries in memory.
func openKeeping(t testing.TB, kept int64, o Options) *Tree {
	t.Helper()
	tree, err := openTree(t.Context(), o, kept)
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree
}

func paths(t testing.TB, view fsutil.FS) []string {
	t.Helper()
	var got []string
	must(t, view.Walk(t.Context(), "", func(p string, _ fs.DirEntry, err error) error {
		got = append(got, p)
		return err
	}))
	sort.Strings(got)
	return got
}

// TestViewLikeBuildKit compares the view with fsutil's view of a plain directory.
func TestViewLikeBuildKit(t *testing.T) {
	dir := plant(t, "a", "b.md", "sub/c", "sub/d.md", "sub/deep/e", "sub/deep/f.md", "other/g", "empty/",
		"link -> sub/deep", "sub/up -> ../other/g", "abs -> /other", "dangling -> nowhere", "out -> /etc/passwd",
		"chain -> link", "loop -> loop", "odd name/*x", "node_modules/m/n", "node_modules/keep")
	tests := map[string]fsutil.FilterOpt{
		"nothing asked":        {},
		"exclude":              {ExcludePatterns: []string{"*.md", "sub/deep"}},
		"exclude but":          {ExcludePatterns: []string{"node_modules", "!node_modules/keep", "**/*.md"}},
		"exclude all but":      {ExcludePatterns: []string{"*", "!sub/deep"}},
		"exclude all but glob": {ExcludePatterns: []string{"**", "!**/e"}},
		"follow":               {FollowPaths: []string{"sub/c", "a"}},
		"follow link":          {FollowPaths: []string{"link/e"}},
		"follow chain":         {FollowPaths: []string{"chain"}},
		"follow absolute":      {FollowPaths: []string{"abs/g"}},
		"follow up":            {FollowPaths: []string{"sub/up"}},
		"follow out":           {FollowPaths: []string{"out", "dangling"}},
		"follow glob":          {FollowPaths: []string{"*.md", "l*k"}},
		"follow glob dir":      {FollowPaths: []string{"s*/deep"}},
		"follow missing":       {FollowPaths: []string{"missing", "missing/x"}},
		"follow all":           {FollowPaths: []string{"."}},
		"both":                 {FollowPaths: []string{"sub", "link"}, ExcludePatterns: []string{"**/*.md"}},
		"excluded target":      {FollowPaths: []string{"link"}, ExcludePatterns: []string{"sub/deep"}},
	}
	for name, opt := range tests {
		t.Run(name, func(t *testing.T) {
			plain, err := fsutil.NewFS(dir)
			must(t, err)
			want, err := fsutil.NewFilterFS(plain, &opt)
			must(t, err)
			for _, kept := range []int64{0, 6, maxKept} {
				tree := openKeeping(t, kept, Options{Dir: dir, FollowPaths: opt.FollowPaths, ExcludePatterns: opt.ExcludePatterns})
				for range 2 {
					if diff := cmp.Diff(paths(t, want), paths(t, tree.FS())); diff != "" {
						t.Errorf("keeping %d entries: differs from fsutil (-want +got):\n%s", kept, diff)
					}
				}
				if tree.Changed() != "" {
					t.Errorf("keeping %d entries: %s changed by itself", kept, tree.Changed())
				}
			}
		})
	}
}

// TestDigest changes a tree and checks whether the digest changes.
func TestDigest(t *testing.T) {
	initial := []string{"a/x", "a/y", "a/deep/z", "b1", "b2", "l -> a/x", "ld -> a", "exe"}
	rm := func(t *testing.T, dir, name string) { must(t, os.RemoveAll(filepath.Join(dir, name))) }
	tests := map[string]struct {
		sel     Selection
		change  func(t *testing.T, dir string)
		notices bool
	}{
		"content":         {Selection{Path: "a"}, func(t *testing.T, d string) { write(t, d, "a/x", "new") }, true},
		"content deep":    {Selection{Path: "/"}, func(t *testing.T, d string) { write(t, d, "a/deep/z", "new") }, true},
		"other content":   {Selection{Path: "a"}, func(t *testing.T, d string) { write(t, d, "b1", "new") }, false},
		"new file":        {Selection{Path: "a"}, func(t *testing.T, d string) { write(t, d, "a/n", "new") }, true},
		"removed file":    {Selection{Path: "a"}, func(t *testing.T, d string) { rm(t, d, "a/y") }, true},
		"empty directory": {Selection{Path: "a"}, func(t *testing.T, d string) { write(t, d, "a/n/", "") }, true},
		"mode":            {Selection{Path: "a"}, func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, "a/x"), 0o600)) }, true},
		"directory mode":  {Selection{Path: "a"}, func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, "a/deep"), 0o700)) }, true},
		"set-id":          {Selection{Path: "exe"}, func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, "exe"), os.ModeSetuid|0o755)) }, true},
		"root mode":       {Selection{Path: "/"}, func(t *testing.T, d string) { must(t, os.Chmod(d, 0o711)) }, false},
		"time": {Selection{Path: "a"}, func(t *testing.T, d string) {
			must(t, os.Chtimes(filepath.Join(d, "a/x"), time.Unix(1, 0), time.Unix(1, 0)))
		}, false},
		"attribute": {Selection{Path: "a"}, func(t *testing.T, d string) {
			must(t, unix.Setxattr(filepath.Join(d, "a/x"), "user.k", []byte("v"), 0))
			must(t, unix.Setxattr(filepath.Join(d, "a/deep"), "user.k", []byte("v"), 0))
		}, false},
		"file becomes link": {Selection{Path: "a"}, func(t *testing.T, d string) { rm(t, d, "a/y"); must(t, os.Symlink("x", filepath.Join(d, "a/y"))) }, true},
		"becomes hard link": {Selection{Path: "a"}, func(t *testing.T, d string) {
			rm(t, d, "a/y")
			must(t, os.Link(filepath.Join(d, "a/x"), filepath.Join(d, "a/y")))
		}, true},
		"link target":              {Selection{Path: "l"}, func(t *testing.T, d string) { rm(t, d, "l"); must(t, os.Symlink("b1", filepath.Join(d, "l"))) }, true},
		"link's target content":    {Selection{Path: "l", FollowLinks: true}, func(t *testing.T, d string) { write(t, d, "a/x", "new") }, true},
		"unfollowed link's target": {Selection{Path: "l"}, func(t *testing.T, d string) { write(t, d, "a/x", "new") }, false},
		"through link":             {Selection{Path: "ld/deep"}, func(t *testing.T, d string) { write(t, d, "a/deep/z", "new") }, true},
		"beside through link":      {Selection{Path: "ld/deep"}, func(t *testing.T, d string) { write(t, d, "a/x", "new") }, false},
		"wildcard content":         {Selection{Path: "b*", Wildcard: true}, func(t *testing.T, d string) { write(t, d, "b2", "new") }, true},
		"wildcard other":           {Selection{Path: "b*", Wildcard: true}, func(t *testing.T, d string) { write(t, d, "exe", "new") }, false},
		"wildcard rename":          {Selection{Path: "b*", Wildcard: true}, func(t *testing.T, d string) { must(t, os.Rename(filepath.Join(d, "b1"), filepath.Join(d, "b3"))) }, true},
		"wildcard more":            {Selection{Path: "b*", Wildcard: true}, func(t *testing.T, d string) { write(t, d, "b3", "new") }, true},
		"wildcard followed":        {Selection{Path: "l?", Wildcard: true, FollowLinks: true}, func(t *testing.T, d string) { write(t, d, "a/y", "new") }, true},
		"excluded":                 {Selection{Path: "a", ExcludePatterns: []string{"deep"}}, func(t *testing.T, d string) { write(t, d, "a/deep/z", "new") }, false},
		"not excluded":             {Selection{Path: "a", ExcludePatterns: []string{"deep"}}, func(t *testing.T, d string) { write(t, d, "a/x", "new") }, true},
		"not included":             {Selection{Path: "/", IncludePatterns: []string{"a/deep"}}, func(t *testing.T, d string) { write(t, d, "a/x", "new") }, false},
		"included":                 {Selection{Path: "/", IncludePatterns: []string{"a/deep"}}, func(t *testing.T, d string) { write(t, d, "a/deep/z", "new") }, true},
		"mode above included":      {Selection{Path: "/", IncludePatterns: []string{"a/deep/z"}}, func(t *testing.T, d string) { must(t, os.Chmod(filepath.Join(d, "a/deep"), 0o700)) }, true},
		"optional appears":         {Selection{Path: "etc/passwd", Optional: true}, func(t *testing.T, d string) { write(t, d, "etc/passwd", "new") }, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := plant(t, initial...)
			before, err := open(t, Options{Dir: dir}).Digest(t.Context(), tt.sel)
			must(t, err)
			for _, kept := range []int64{0, 4} {
				small, err := openKeeping(t, kept, Options{Dir: dir}).Digest(t.Context(), tt.sel)
				must(t, err)
				if small != before {
					t.Errorf("keeping %d entries gives another digest", kept)
				}
			}
			tt.change(t, dir)
			after, err := open(t, Options{Dir: dir}).Digest(t.Context(), tt.sel)
			must(t, err)
			if (before != after) != tt.notices {
				t.Errorf("digest changed: %v, want %v", before != after, tt.notices)
			}
		})
	}
	t.Run("elsewhere", func(t *testing.T) {
		one, err := open(t, Options{Dir: plant(t, initial...)}).Digest(t.Context(), Selection{})
		must(t, err)
		two, err := open(t, Options{Dir: plant(t, initial...)}).Digest(t.Context(), Selection{})
		must(t, err)
		if one != two {
			t.Error("equal trees have different digests")
		}
	})
}

// TestAttributes checks a tree of an image. Its xattrs are part of the content, except
// for xattrs that control a storage driver.
func TestAttributes(t *testing.T) {
	digest := func(name, attr string) string {
		dir := plant(t, "a/x", "a/deep/z")
		if name != "" {
			must(t, unix.Setxattr(filepath.Join(dir, name), attr, []byte("v"), 0))
		}
		d, err := open(t, Options{Dir: dir, KeepOwners: true}).Digest(t.Context(), Selection{Path: "a"})
		must(t, err)
		return d.String()
	}
	plain := digest("", "")
	if digest("a/x", "user.k") == plain || digest("a/deep", "user.k") == plain {
		t.Error("an attribute goes unnoticed")
	}
	if digest("a/x", "user.overlay.opaque") != plain {
		t.Error("an attribute of the storage counts")
	}
}

func TestNotFound(t *testing.T) {
	tree := open(t, Options{Dir: plant(t, "a", "hidden", "out -> /etc/passwd", "loop -> loop"), ExcludePatterns: []string{"hidden"}})
	for _, p := range []string{"/notexist", "/hidden", "/a/below", "/out"} {
		_, err := tree.Digest(t.Context(), Selection{Path: p, FollowLinks: true})
		var missing *NotFoundError
		if !errors.As(err, &missing) || !errors.Is(err, fs.ErrNotExist) || err.Error() != `"`+p+`": not found` {
			t.Errorf("%s: error %v", p, err)
		}
	}
	if _, err := tree.Digest(t.Context(), Selection{Path: "/loop", FollowLinks: true}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("loop: error %v", err)
	}
}

func TestReadFile(t *testing.T) {
	dir := plant(t, "Dockerfile -> sub/file", "sub/file", "out -> ../../../../etc/hostname", "dir/")
	must(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	tree := open(t, Options{Dir: dir})
	if got, err := tree.ReadFile("Dockerfile", 100); err != nil || string(got) != "sub/file" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := tree.ReadFile("sub/file", 3); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	for _, p := range []string{"out", "fifo", "dir"} {
		if got, err := tree.ReadFile(p, 100); err == nil {
			t.Errorf("%s was read: %q", p, got)
		}
	}
}

func TestChanged(t *testing.T) {
	dir := plant(t, "a")
	tree := open(t, Options{Dir: dir})
	if _, err := tree.Lookup("a", true); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "a", "longer than before")
	_, err := tree.Digest(t.Context(), Selection{})
	must(t, err)
	if tree.Changed() != "/a" {
		t.Errorf("changed file is %q", tree.Changed())
	}
}

func TestRecheck(t *testing.T) {
	dir := plant(t, "a")
	tree := open(t, Options{Dir: dir})
	e, err := tree.Lookup("a", true)
	must(t, err)
	f, err := e.Open()
	must(t, err)
	defer func() { must(t, f.Close()) }()
	must(t, e.Recheck(int(f.Fd())))
	if tree.Changed() != "" {
		t.Fatalf("%s changed by itself", tree.Changed())
	}
	write(t, dir, "a", "longer than before")
	must(t, e.Recheck(int(f.Fd())))
	if tree.Changed() != "/a" {
		t.Errorf("changed file is %q", tree.Changed())
	}
}

// TestChangedBetween changes files of a tree that is too large for memory, after they
// were read.
func TestChangedBetween(t *testing.T) {
	for name, change := range map[string]func(dir string){
		"content":  func(dir string) { write(t, dir, "sub/a", "longer than before") },
		"new":      func(dir string) { write(t, dir, "sub/n", "") },
		"gone":     func(dir string) { must(t, os.Remove(filepath.Join(dir, "sub/a"))) },
		"mode":     func(dir string) { must(t, os.Chmod(filepath.Join(dir, "sub/a"), 0o600)) },
		"replaced": func(dir string) { must(t, os.Rename(filepath.Join(dir, "sub/b"), filepath.Join(dir, "sub/a"))) },
		"link": func(dir string) {
			must(t, os.Remove(filepath.Join(dir, "sub/l")))
			must(t, os.Symlink("b", filepath.Join(dir, "sub/l")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := plant(t, "sub/a", "sub/b", "sub/l -> a")
			tree := openKeeping(t, 0, Options{Dir: dir})
			_, err := tree.Digest(t.Context(), Selection{})
			must(t, err)
			if tree.Changed() != "" {
				t.Fatalf("%s changed by itself", tree.Changed())
			}
			change(dir)
			paths(t, tree.FS())
			if tree.Changed() != "/sub" {
				t.Errorf("changed is %q", tree.Changed())
			}
		})
	}
}

// TestWhole checks that a whole tree is not read again after changes.
func TestWhole(t *testing.T) {
	dir := plant(t, "sub/a")
	tree := open(t, Options{Dir: dir, Whole: true})
	write(t, dir, "sub/b", "")
	if diff := cmp.Diff([]string{"sub", "sub/a"}, paths(t, tree.FS())); diff != "" {
		t.Error(diff)
	}
}

// TestScanEnds checks the errors of listing, hashing and visiting, and that no goroutine
// keeps running.
func TestScanEnds(t *testing.T) {
	names := make([]string, 3000)
	for i := range names {
		names[i] = fmt.Sprintf("d%d/f%d", i%7, i)
	}
	dir := plant(t, names...)
	tree := openKeeping(t, 0, Options{Dir: dir})
	picks, err := tree.Pick(t.Context(), Selection{})
	must(t, err)
	stop := errors.New("enough")
	n := 0
	err = tree.scan(t.Context(), picks, func(scanned) error {
		if n++; n == 500 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || n != 500 {
		t.Errorf("visit: %v after %d", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tree.Digest(ctx, Selection{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// A file is removed between listing and hashing.
	kept := open(t, Options{Dir: dir})
	paths(t, kept.FS())
	must(t, os.Remove(filepath.Join(dir, "d3/f3")))
	if _, err := kept.Digest(t.Context(), Selection{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
}
