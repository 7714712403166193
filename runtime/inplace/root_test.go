package inplace

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string, protected ...string) *Root {
	t.Helper()
	r, err := openRoot(dir, protected, nil)
	must(t, err)
	return r
}

func own(t *testing.T, r *Root) {
	t.Helper()
	release, err := r.Own()
	must(t, err)
	release()
}

// step calls do while the files of the image are in place.
func step(t *testing.T, r *Root, do func()) {
	t.Helper()
	must(t, r.Begin())
	defer r.End()
	do()
}

// comeAndGo puts the container's own files and those of the image in place in turn, and
// closes the root directory. Both must stay unchanged, except the spared paths.
func comeAndGo(t *testing.T, r *Root, dir string, spared []string, before, image map[string]string) {
	t.Helper()
	for range 2 {
		own(t, r)
		same(t, tree(t, dir, spared...), before)
		step(t, r, func() { same(t, tree(t, dir, spared...), image) })
	}
	closed(t, r, dir)
	same(t, tree(t, dir, spared...), before)
}

// closed closes r and checks that it removed its hidden directory.
func closed(t *testing.T, r *Root, dir string) {
	t.Helper()
	must(t, r.Close())
	if _, err := os.Lstat(filepath.Join(dir, hidden)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close there is %s: %v", hidden, err)
	}
}

// paint sets metadata of an image on the root directory.
func paint(t *testing.T, dir string) {
	t.Helper()
	must(t, unix.Chmod(dir, 0o1711))
	must(t, unix.Setxattr(dir, "user.root", []byte("image"), 0))
	if !entered.SingleID() {
		must(t, os.Chown(dir, 11, 12))
	}
}

func TestStepsAndOwnFilesTakeTurns(t *testing.T) {
	places(t, fillOwn, func(t *testing.T, p place) {
		outside := filepath.Join(filepath.Dir(p.dir), "outside")
		must(t, os.MkdirAll(outside, 0o700))
		must(t, os.WriteFile(filepath.Join(outside, "file"), nil, 0o600))
		before := tree(t, p.dir)
		r := open(t, p.dir)
		same(t, tree(t, p.dir), before)
		step(t, r, func() {
			for name := range tree(t, p.dir) {
				if name != "." {
					t.Errorf("a step without an image sees %q", name)
				}
			}
			makeFiles(t, p.dir, imageTree)
			paint(t, p.dir)
		})
		image := tree(t, p.dir)
		for range 2 {
			own(t, r)
			same(t, tree(t, p.dir), before)
			step(t, r, func() { same(t, tree(t, p.dir), image) })
		}
		step(t, r, func() { must(t, os.Remove(filepath.Join(p.dir, "etc"))) })
		delete(image, "etc")
		own(t, r)
		step(t, r, func() { same(t, tree(t, p.dir), image) })
		closed(t, r, p.dir)
		same(t, tree(t, p.dir), before)
		if _, err := os.Stat(filepath.Join(outside, "file")); err != nil {
			t.Errorf("what a link of the image leads to: %v", err)
		}
		must(t, os.RemoveAll(outside))
	})
}

func TestOverlayOfSeveralLayers(t *testing.T) {
	places(t, fillOwn, func(t *testing.T, p place) {
		// Before the build the upper directory has new, removed and replaced files, and a
		// new hard link.
		must(t, os.WriteFile(filepath.Join(p.dir, "etc/new"), []byte("new"), 0o600))
		must(t, os.Remove(filepath.Join(p.dir, "etc/passwd")))
		must(t, os.RemoveAll(filepath.Join(p.dir, "var/log")))
		must(t, os.MkdirAll(filepath.Join(p.dir, "var/log/deep"), 0o755))
		must(t, os.WriteFile(filepath.Join(p.dir, "var/log/deep/new"), nil, 0o600))
		must(t, os.Link(filepath.Join(p.dir, "var/log/deep/new"), filepath.Join(p.dir, "usr/new")))
		before := tree(t, p.dir)
		r := open(t, p.dir)
		step(t, r, func() { makeFiles(t, p.dir, imageTree) })
		own(t, r)
		same(t, tree(t, p.dir), before)
		closed(t, r, p.dir)
		same(t, tree(t, p.dir), before)
	})
}

func TestProtectedPathsStay(t *testing.T) {
	kept := []string{"home/ctx/src", "store"}
	places(t, fillOwn, func(t *testing.T, p place) {
		before := tree(t, p.dir, kept...)
		r := open(t, p.dir, "/home/ctx/src/", "/store", "/", "/not/there")
		step(t, r, func() {
			got := tree(t, p.dir)
			for _, name := range []string{"home/ctx/src/main.c", "store/layers"} {
				if got[name] == "" {
					t.Errorf("a step does not see %s", name)
				}
			}
			for _, name := range []string{"home/ctx/beside", "etc", "usr", "not"} {
				if got[name] != "" {
					t.Errorf("a step sees %s", name)
				}
			}
			// The image also has the parent directories of protected paths, with other
			// metadata.
			must(t, os.WriteFile(filepath.Join(p.dir, "store/written"), nil, 0o600))
			makeFiles(t, p.dir, []entry{
				{path: "home", mode: unix.S_IFDIR | 0o700, uid: 5, xattrs: map[string]string{"user.whose": "image", "user.image": "yes"}},
				{path: "home/ctx", mode: unix.S_IFDIR | 0o711, xattrs: map[string]string{"user.image": "yes"}},
				{path: "home/ctx/beside", mode: dirMode},
				{path: "home/ctx/beside/file", mode: fileMode},
			})
		})
		image := tree(t, p.dir, kept...)
		comeAndGo(t, r, p.dir, kept, before, image)
		for _, name := range []string{"home/ctx/src/main.c", "store/layers", "store/written"} {
			if _, err := os.Stat(filepath.Join(p.dir, name)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRootHasOneBuild(t *testing.T) {
	dir := diskDir(t)
	fillOwn(t, dir)
	before := tree(t, dir)
	first := open(t, dir)
	step(t, first, func() { makeFiles(t, dir, imageTree) })
	image := tree(t, dir)
	_, err := openRoot(dir, nil, nil)
	if err == nil || !strings.Contains(err.Error(), "another build is using the root directory of this container") {
		t.Errorf("a second build: %v", err)
	}
	same(t, tree(t, dir), image)
	closed(t, first, dir)
	same(t, tree(t, dir), before)
	closed(t, open(t, dir), dir)
	same(t, tree(t, dir), before)
}

func TestReadOnlyRoot(t *testing.T) {
	dir := diskDir(t)
	mountOn(t, dir, func(at string) error { return unix.Mount("tmpfs", at, "tmpfs", unix.MS_RDONLY, "") })
	if _, err := openRoot(dir, nil, nil); !errors.Is(err, ErrReadOnly) {
		t.Errorf("on a read-only file system: %v", err)
	}
}

// An image, or another process of the container, may create any file with the hidden
// name. OpenRoot must return an error for it.
func TestForeignHiddenDirectory(t *testing.T) {
	for name, plant := range map[string]func(dir, hidden string) error{
		"a file":                        func(_, hidden string) error { return os.WriteFile(hidden, nil, 0o600) },
		"a link to a directory":         func(dir, hidden string) error { return os.Symlink(filepath.Join(dir, "etc"), hidden) },
		"a link for a lock":             func(dir, hidden string) error { return inside(hidden, lockName, filepath.Join(dir, "etc/passwd")) },
		"a link for the own directory":  func(dir, hidden string) error { return inside(hidden, ownName, filepath.Join(dir, "etc")) },
		"a link for the image's":        func(dir, hidden string) error { return inside(hidden, imgName, filepath.Join(dir, "etc")) },
		"a link to a directory outside": func(dir, hidden string) error { return os.Symlink(filepath.Dir(dir), hidden) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(diskDir(t), "root")
			must(t, os.Mkdir(dir, 0o755))
			fillOwn(t, dir)
			before := tree(t, dir)
			must(t, plant(dir, filepath.Join(dir, hidden)))
			r, err := openRoot(dir, nil, nil)
			if err == nil {
				t.Errorf("it is taken: %v", r.Close())
			}
			same(t, tree(t, dir), before)
		})
	}
}

func inside(hidden, name, target string) error {
	if err := os.Mkdir(hidden, 0o700); err != nil {
		return err
	}
	return os.Symlink(target, filepath.Join(hidden, name))
}

func TestDiscardRemovesTheImage(t *testing.T) {
	places(t, fillOwn, func(t *testing.T, p place) {
		before := tree(t, p.dir)
		r := open(t, p.dir)
		step(t, r, func() { makeFiles(t, p.dir, imageTree) })
		release, err := r.Own()
		must(t, err)
		r.Discard()
		same(t, tree(t, p.dir), before)
		release()
		// Another step after Discard waits for the removal.
		step(t, r, func() {
			for name := range tree(t, p.dir) {
				if name != "." {
					t.Errorf("a step after Discard sees %q", name)
				}
			}
			makeFiles(t, p.dir, imageTree[:2])
		})
		own(t, r)
		r.Discard()
		r.Discard()
		closed(t, r, p.dir)
		same(t, tree(t, p.dir), before)
	})
}

func TestLeaveRemovesTheImage(t *testing.T) {
	places(t, fillOwn, func(t *testing.T, p place) {
		before := tree(t, p.dir)
		r := open(t, p.dir)
		for range 2 {
			step(t, r, func() {
				makeFiles(t, p.dir, imageTree)
				must(t, r.Leave())
				same(t, tree(t, p.dir), before)
			})
		}
		closed(t, r, p.dir)
		same(t, tree(t, p.dir), before)
	})
}

// Steps and users of the container's own files run in parallel. Each sees only its own
// files.
func TestTurnsExcludeEachOther(t *testing.T) {
	dir := diskDir(t)
	must(t, os.WriteFile(filepath.Join(dir, "own"), nil, 0o600))
	r := open(t, dir)
	step(t, r, func() { must(t, os.WriteFile(filepath.Join(dir, "image"), nil, 0o600)) })
	see := func(want, not string) {
		if _, err := os.Stat(filepath.Join(dir, want)); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(dir, not)); err == nil {
			t.Errorf("%s is there beside %s", not, want)
		}
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 20 {
				if i%2 == 0 {
					if err := r.Begin(); err != nil {
						t.Error(err)
						return
					}
					see("image", "own")
					r.End()
					continue
				}
				release, err := r.Own()
				if err != nil {
					t.Error(err)
					return
				}
				see("own", "image")
				release()
			}
		})
	}
	all.Wait()
	closed(t, r, dir)
	see("own", "image")
}

// Several callers of Own do not wait for each other.
func TestOwnIsShared(t *testing.T) {
	dir := diskDir(t)
	r := open(t, dir)
	first, err := r.Own()
	must(t, err)
	second, err := r.Own()
	must(t, err)
	first()
	begun := make(chan error)
	go func() {
		begun <- r.Begin()
		r.End()
	}()
	select {
	case err := <-begun:
		t.Fatalf("a step began while the container's own files were in use: %v", err)
	default:
	}
	second()
	must(t, <-begun)
	closed(t, r, dir)
}

func TestPathsOfRoot(t *testing.T) {
	dir := diskDir(t)
	must(t, os.Mkdir(filepath.Join(dir, "a mount"), 0o700))
	mountOn(t, filepath.Join(dir, "a mount"), func(at string) error { return unix.Mount("tmpfs", at, "tmpfs", 0, "") })
	r := open(t, dir, "/store/", "//var/../work", "/")
	spared, err := r.Spared()
	must(t, err)
	slices.Sort(spared)
	if want := []string{hidden, "a mount", "store", "work"}; !slices.Equal(spared, want) {
		t.Errorf("spared are %q, want %q", spared, want)
	}
	if got := r.Protected(); !slices.Equal(got, []string{"store", "work"}) {
		t.Errorf("protected are %q", got)
	}
	if r.Dir() != dir {
		t.Errorf("the directory is %s, want %s", r.Dir(), dir)
	}
	if info, err := os.Stat(r.Nursery()); err != nil || !info.IsDir() {
		t.Errorf("the nursery: %v", err)
	}
	closed(t, r, dir)
}

// mountOn mounts a file system until the test ends.
func mountOn(t *testing.T, at string, mount func(at string) error) {
	t.Helper()
	must(t, mount(at))
	t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
}

func TestMountPointsStay(t *testing.T) {
	places(t, fillOwn, func(t *testing.T, p place) {
		mountOn(t, filepath.Join(p.dir, "mnt/vol"), func(at string) error { return unix.Mount("tmpfs", at, "tmpfs", 0, "") })
		// Container engines mount such a file.
		file := filepath.Join(diskDir(t), "resolv.conf")
		must(t, os.WriteFile(file, []byte("nameserver"), 0o600))
		must(t, os.WriteFile(filepath.Join(p.dir, "etc/resolv.conf"), nil, 0o600))
		mountOn(t, filepath.Join(p.dir, "etc/resolv.conf"), func(at string) error { return unix.Mount(file, at, "", unix.MS_BIND, "") })
		mountOn(t, filepath.Join(p.dir, "proc"), func(at string) error { return unix.Mount("/proc", at, "", unix.MS_BIND|unix.MS_REC, "") })
		mounted := []string{"mnt/vol", "etc/resolv.conf", "proc"}
		before := tree(t, p.dir, mounted...)
		r := open(t, p.dir)
		step(t, r, func() {
			// Only the parent directories of mount points exist.
			want := []string{".", "etc", "mnt"}
			if got := slices.Sorted(maps.Keys(tree(t, p.dir, mounted...))); !slices.Equal(got, want) {
				t.Errorf("a step without an image sees %q, want %q", got, want)
			}
			must(t, os.WriteFile(filepath.Join(p.dir, "mnt/vol/file"), nil, 0o600))
			makeFiles(t, p.dir, []entry{
				{path: "etc", mode: unix.S_IFDIR | 0o700, uid: 3, xattrs: map[string]string{"user.of": "image"}},
				{path: "etc/passwd", mode: fileMode, what: "of the image"},
				{path: "mnt", mode: unix.S_IFDIR | 0o500},
			})
		})
		image := tree(t, p.dir, mounted...)
		comeAndGo(t, r, p.dir, mounted, before, image)
		if _, err := os.Stat(filepath.Join(p.dir, "mnt/vol/file")); err != nil {
			t.Errorf("what a step wrote to a volume: %v", err)
		}
		if content, err := os.ReadFile(filepath.Join(p.dir, "etc/resolv.conf")); err != nil || string(content) != "nameserver" {
			t.Errorf("the engine's file: %q, %v", content, err)
		}
	})
}
