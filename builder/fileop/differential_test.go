package fileop

import (
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"
	fscopy "github.com/tonistiigi/fsutil/copy"
)

// reference copies files with the library that BuildKit uses.
func reference(t *testing.T, a *pb.FileActionCopy, src, dst string) error {
	t.Helper()
	var owner fscopy.Chowner
	if u := a.GetOwner().GetUser(); u != nil {
		id := int(u.GetByID())
		owner = func(*fscopy.User) (*fscopy.User, error) { return &fscopy.User{UID: id, GID: id}, nil }
	}
	matches := []string{clean(a.GetSrc())}
	if a.GetAllowWildcard() {
		var err error
		if matches, err = fscopy.ResolveWildcards(src, clean(a.GetSrc()), a.GetFollowSymlink()); err != nil {
			return err
		}
	}
	for _, m := range matches {
		err := fscopy.Copy(t.Context(), src, m, dst, clean(a.GetDest()), func(ci *fscopy.CopyInfo) {
			ci.Chown = owner
			ci.IncludePatterns, ci.ExcludePatterns = a.GetIncludePatterns(), a.GetExcludePatterns()
			ci.CopyDirContents, ci.FollowLinks = a.GetDirCopyContents(), a.GetFollowSymlink()
			ci.AlwaysReplaceExistingDestPaths = a.GetAlwaysReplaceExistingDestPaths()
			if ci.ModeStr = a.GetModeStr(); ci.ModeStr == "" && a.GetMode() != -1 {
				mode := int(a.GetMode())
				ci.Mode = &mode
			}
			if ts := a.GetTimestamp(); ts != -1 {
				at := time.Unix(0, ts)
				ci.Utime = &at
			}
			fscopy.AllowXAttrErrors(ci)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

var sourceTree = []file{
	{path: "foo", content: "foo"},
	{path: "bar", content: "bar", mode: os.ModeSetuid | 0o755, uid: 7, gid: 8},
	{path: "sub", mode: os.ModeDir | 0o750, uid: 3, gid: 4},
	{path: "sub/a.md", content: "a"},
	{path: "sub/a.txt", content: "a", uid: 1000, gid: 1001, mode: 0o600},
	{path: "sub/dir1/foo", content: "f1"},
	{path: "sub/dir1/deep/x", content: "x"},
	{path: "sub/dir2/foo", content: "f2"},
	{path: "sub/dir2/link", content: "foo", mode: os.ModeSymlink, uid: 5, gid: 6},
	{path: "sub/empty", mode: os.ModeDir | os.ModeSticky | 0o777},
	{path: "abs", content: "/sub/dir1", mode: os.ModeSymlink},
	{path: "up", content: "../../../sub/a.md", mode: os.ModeSymlink},
	{path: "hard1", content: "hard", mode: 0o640},
	{path: "hard2", hard: "hard1"},
	{path: "sub/hard3", hard: "hard1"},
	{path: "fifo", mode: os.ModeNamedPipe | 0o620},
	{path: "sock", mode: os.ModeSocket | 0o600},
	{path: "set/gid", mode: os.ModeSetgid | 0o755},
	{path: "[x", content: "bracket"},
}

var destTree = []file{
	{path: "etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:2::/:/bin/sh\n"},
	{path: "there", mode: os.ModeDir | 0o700, uid: 9, gid: 9},
	{path: "there/dir1", mode: os.ModeDir | 0o700, uid: 9, gid: 9},
	{path: "there/foo", content: "old", uid: 9, gid: 9, mode: 0o600},
	{path: "there/dir2", content: "file over which a directory comes"},
	{path: "link", content: "/there", mode: os.ModeSymlink},
	{path: "dangling", content: "/new/place", mode: os.ModeSymlink},
	{path: "file", content: "file"},
	{path: "filelink", content: "file", mode: os.ModeSymlink},
}

// TestCopyLikeBuildKit compares copies with those of BuildKit's library.
func TestCopyLikeBuildKit(t *testing.T) {
	mode := func(m int32) func(*pb.FileActionCopy) { return func(a *pb.FileActionCopy) { a.Mode = m } }
	modeStr := func(s string) func(*pb.FileActionCopy) {
		return func(a *pb.FileActionCopy) { a.ModeStr, a.Mode = s, 0 }
	}
	chown := func(a *pb.FileActionCopy) { a.Owner = byID(55) }
	exclude := func(p ...string) func(*pb.FileActionCopy) {
		return func(a *pb.FileActionCopy) { a.ExcludePatterns = p }
	}
	include := func(p ...string) func(*pb.FileActionCopy) {
		return func(a *pb.FileActionCopy) { a.IncludePatterns = p }
	}
	asDir := func(a *pb.FileActionCopy) { a.DirCopyContents = false }
	noFollow := func(a *pb.FileActionCopy) { a.FollowSymlink = false }
	replace := func(a *pb.FileActionCopy) { a.AlwaysReplaceExistingDestPaths = true }
	at := func(a *pb.FileActionCopy) { a.Timestamp = 1e18 }

	tests := map[string]*pb.FileActionCopy{
		"file":                       cp("foo", "/"),
		"file to new name":           cp("foo", "/x"),
		"file to new dir":            cp("foo", "/a/b/"),
		"file to dot":                cp("foo", "/a/b/."),
		"file below new dir":         cp("bar", "/a/b/c"),
		"file over file":             cp("foo", "/file"),
		"file over link":             cp("foo", "/filelink"),
		"file into linked dir":       cp("foo", "/link/"),
		"file to linked dir":         cp("foo", "/link"),
		"file to dangling":           cp("foo", "/dangling"),
		"file below dangling":        cp("foo", "/dangling/x/"),
		"file to escaping dest":      cp("foo", "/../../x"),
		"file below file":            cp("foo", "/file/x"),
		"all":                        cp("/", "/there"),
		"all to new":                 cp("/", "/n/e/w"),
		"all to root":                cp("/", "/"),
		"dir":                        cp("sub", "/x"),
		"dir slash":                  cp("sub/", "/x/"),
		"dir to existing with clash": cp("sub", "/there"),
		"dir over file":              cp("sub/dir1", "/file"),
		"dir itself":                 cp("sub", "/there", asDir),
		"dir itself to new":          cp("sub", "/new/x", asDir),
		"dir itself over file":       cp("sub", "/file", asDir),
		"root itself":                cp("/", "/new", asDir),
		"clash replaced":             cp("sub", "/there", replace),
		"dir over file replaced":     cp("sub/dir1", "/file", replace),
		"chown":                      cp("sub", "/there/dir1/q", chown),
		"chown created parents":      cp("foo", "/p/q/r/", chown),
		"chown existing":             cp("sub/dir1", "/there/dir1", chown),
		"chmod":                      cp("sub", "/x", mode(0o4711)),
		"chmod parents":              cp("foo", "/p/q/", mode(0o777)),
		"chmod 0":                    cp("foo", "/p/", mode(0)),
		"chmod set-ids and sticky":   cp("sub", "/p/", mode(0o7755)),
		"chmod and chown":            cp("sub", "/x", mode(0o6711), chown),
		"symbolic":                   cp("sub", "/x", modeStr("u=rwX,go=rX")),
		"symbolic parents":           cp("bar", "/p/q/", modeStr("a+x,u-s,+t")),
		"symbolic copied modes":      cp("/", "/p/", modeStr("g=u,o-rwx")),
		"wildcard":                   cp("*", "/w/"),
		"wildcard dirs":              cp("sub/*/foo", "/w/"),
		"wildcard dir itself":        cp("su*", "/w/", asDir),
		"wildcard through link":      cp("abs/*", "/w/"),
		"wildcard link":              cp("ab?", "/w/"),
		"wildcard link not followed": cp("ab?", "/w/", noFollow),
		"wildcard class":             cp("[[]x", "/w/"),
		"wildcard nothing":           cp("nothing*", "/w/"),
		"wildcard nothing below":     cp("nothing/*", "/w/"),
		"link":                       cp("abs", "/l"),
		"link out":                   cp("up", "/l"),
		"link not followed":          cp("abs", "/l", noFollow),
		"through link":               cp("abs/deep/../foo", "/l"),
		"missing":                    cp("missing", "/l"),
		"missing below file":         cp("foo/x", "/l"),
		"exclude":                    cp("sub", "/x", exclude("*.md", "dir1/deep")),
		"exclude dir":                cp("sub", "/x", exclude("dir1", "**/link")),
		"exclude but":                cp("sub", "/x", exclude("dir1", "!dir1/deep/x")),
		"exclude all but":            cp("/", "/x", exclude("**", "!**/foo")),
		"exclude everything":         cp("sub", "/x", exclude("**")),
		"include":                    cp("/", "/x", include("sub/*/foo")),
		"include into existing":      cp("sub", "/there", include("dir1/foo")),
		"include dir":                cp("/", "/x", include("sub/dir1")),
		"include with exclude":       cp("/", "/x", include("sub"), exclude("**/*.md")),
		"include deep":               cp("/", "/x", include("**/x"), chown),
		"include nothing":            cp("/", "/x", include("nothing/at/all")),
		"include with mode":          cp("/", "/x", include("sub/dir1/deep"), mode(0o700)),
		"timestamp":                  cp("sub", "/x/y/", at),
		"timestamp on existing":      cp("sub/dir1", "/there/dir1", at),
		"timestamp with include":     cp("/", "/x/y/", at, include("sub")),
		"special files":              cp("/", "/x", include("fifo", "sock", "set")),
		"hard links":                 cp("/", "/x", include("hard*", "sub/hard3")),
	}
	// In BuildKit the times of some directories depend on the order of events. In these
	// cases the copy must have the time of the source.
	steadier := map[string]bool{
		"include": true, "include deep": true, "exclude but": true, "exclude all but": true, "hard links": true,
		"include with mode": true, "include dir": true, "special files": true, "include with exclude": true,
	}
	for name, a := range tests {
		t.Run(name, func(t *testing.T) {
			src := plant(t, sourceTree...)
			want, got := plant(t, destTree...), plant(t, destTree...)
			wantErr := reference(t, a, src, want)
			gotErr := run(t, op(a), src, got)
			if (wantErr == nil) != (gotErr == nil) {
				t.Fatalf("BuildKit: %v\nhere: %v", wantErr, gotErr)
			}
			if wantErr != nil {
				t.Logf("BuildKit: %v\nhere: %v", wantErr, gotErr)
				return
			}
			w, g := list(t, want), list(t, got)
			if steadier[name] {
				w, g = withoutDirTimes(w), withoutDirTimes(g)
			}
			if diff := cmp.Diff(w, g); diff != "" {
				t.Errorf("differs from BuildKit (-want +got):\n%s", diff)
			}
		})
	}
}
