package fileop

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
)

// dice makes trees and actions with few different names, so that they collide.
type dice struct{ *rand.Rand }

func (d dice) one(of ...string) string { return of[d.IntN(len(of))] }

func (d dice) name() string { return d.one("a", "b", "c", "a.x", "b.x") }

func (d dice) path(depth int) string {
	p := d.name()
	for range d.IntN(depth) {
		p = path.Join(p, d.name())
	}
	return p
}

func (d dice) link() string {
	switch d.IntN(4) {
	case 0:
		return "/" + d.path(3)
	case 1:
		return path.Join("..", d.path(2))
	case 2:
		return "../../.." + "/" + d.path(2)
	}
	return d.path(2)
}

// tree returns files. It never creates an entry below a file that is not a directory.
func (d dice) tree(size int) []file {
	kinds := map[string]os.FileMode{}
	var files []file
	for range size {
		f := file{path: d.path(4), uid: d.IntN(3), gid: d.IntN(3), mode: os.FileMode(0o400 + d.IntN(0o400))}
		taken := false
		for p := f.path; p != "."; p = path.Dir(p) {
			kind, ok := kinds[p]
			taken = taken || ok && (p == f.path || !kind.IsDir())
		}
		if taken {
			continue
		}
		switch d.IntN(6) {
		case 0, 1:
			f.mode |= os.ModeDir
		case 2:
			f.mode, f.content = os.ModeSymlink, d.link()
		default:
			f.content = d.one("1", "22", "333")
		}
		for p := path.Dir(f.path); p != "."; p = path.Dir(p) {
			kinds[p] = os.ModeDir
		}
		kinds[f.path] = f.mode
		files = append(files, f)
	}
	return files
}

func (d dice) source() string {
	switch d.IntN(5) {
	case 0:
		return d.one("*", "*/*", "?", "a*", "[ab]", "*.x", "a/*", "b/*/a", "*/a", "[^a]*")
	case 1:
		return "/"
	case 2:
		return path.Join(d.path(2), d.one("..", ".", "../"+d.name())) + d.one("", "/")
	}
	return d.path(3)
}

func (d dice) action() *pb.FileActionCopy {
	return cp(d.source(), "/"+d.path(3)+d.one("", "", "/", "/.", "/../"+d.name()), func(a *pb.FileActionCopy) {
		a.DirCopyContents = d.IntN(4) > 0
		a.FollowSymlink = d.IntN(6) > 0
		a.AlwaysReplaceExistingDestPaths = d.IntN(6) == 0
		if d.IntN(4) == 0 {
			a.Owner = byID(uint32(10 + d.IntN(3)))
		}
		if d.IntN(4) == 0 {
			a.Mode = int32(d.IntN(0o1000))
		}
		if d.IntN(3) == 0 {
			a.ExcludePatterns = []string{d.one("a", "*.x", "**/b", "a/b", "*/c", "!a", "**")}
			if d.IntN(2) == 0 {
				a.ExcludePatterns = append(a.ExcludePatterns, "!"+d.path(2))
			}
		}
		if d.IntN(4) == 0 {
			a.IncludePatterns = []string{d.one("a", "b/*", "**/c", "a/b", "*/*/*")}
		}
	})
}

// TestRandomCopiesLikeBuildKit compares random copies with those of BuildKit's library.
// Times of directories are not compared, because in BuildKit some of them depend on the
// order of events.
func TestRandomCopiesLikeBuildKit(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 3))}
			tree, base, a := d.tree(12), d.tree(8), d.action()
			src, want, got := plant(t, tree...), plant(t, base...), plant(t, base...)
			wantErr := reference(t, a, src, want)
			gotErr := run(t, op(a), src, got)
			if len(a.IncludePatterns) > 0 && errors.Is(wantErr, unix.ENOTDIR) {
				return // BuildKit also checks destinations of excluded files
			}
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("%v\nfrom:\n%s\nBuildKit: %v\nhere: %v", a, list(t, src), wantErr, gotErr)
			}
			if wantErr != nil {
				return
			}
			if diff := cmp.Diff(withoutDirTimes(list(t, want)), withoutDirTimes(list(t, got))); diff != "" {
				t.Errorf("%v\nfrom:\n%s\ndiffers from BuildKit (-want +got):\n%s", a, list(t, src), diff)
			}
		})
	}
}
