package fileop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
)

func TestOwnerByName(t *testing.T) {
	dest := []file{
		{path: "etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\ndaemon:x:11:12::/:/bin/sh\n"},
		{path: "etc/group", content: "root:x:0:\nnobody:x:99:\n"},
	}
	tests := map[string]struct {
		owner *pb.ChownOpt
		want  string
	}{
		"user brings its group":  {byName("daemon", ""), "11:12"},
		"user and group":         {byName("daemon", "nobody"), "11:99"},
		"unknown user is root":   {byName("stranger", ""), "0:0"},
		"unknown group":          {byName("daemon", "strangers"), "11:12"},
		"number stands for both": {byID(55), "55:55"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			src, dst := plant(t, file{path: "f", uid: 3, gid: 4}), plant(t, dest...)
			must(t, run(t, op(cp("f", "/new/f", func(a *pb.FileActionCopy) { a.Owner = tt.owner })), src, dst))
			for _, p := range []string{"new", "new/f"} {
				var st unix.Stat_t
				must(t, unix.Lstat(filepath.Join(dst, p), &st))
				if got := fmt.Sprintf("%d:%d", st.Uid, st.Gid); got != tt.want {
					t.Errorf("%s is owned by %s, want %s", p, got, tt.want)
				}
			}
		})
	}
	t.Run("on scratch", func(t *testing.T) {
		o := op(cp("f", "/f", func(a *pb.FileActionCopy) {
			a.Owner = byName("daemon", "")
			a.Owner.User.GetByName().Input = -1
		}))
		err := run(t, o, plant(t, file{path: "f"}), plant(t))
		if err == nil || err.Error() != `user or group "daemon" cannot be looked up in an empty image; use a number` {
			t.Errorf("error %v", err)
		}
	})
}

// TestContext copies from a view of a directory. The copies are owned by root, and files
// that the ignore file excludes do not exist.
func TestContext(t *testing.T) {
	dir := plant(t, append(sourceTree, file{path: "secret", content: "s"})...)
	tree := openTree(t, local.Options{Dir: dir, ExcludePatterns: []string{"secret", "sub/dir1", "!sub/dir1/foo", "sock"}})
	dst := plant(t)
	o := op(cp("/", "/c/"))
	o.Actions[0].Input = -1
	must(t, Run(t.Context(), o, Options{Dest: dst, Inputs: []Input{{}, {Tree: tree}}}))
	got := list(t, dst)
	if strings.Contains(got, "secret") || strings.Contains(got, "deep") || !strings.Contains(got, "c/sub/dir1/foo") {
		t.Errorf("wrong files:\n%s", got)
	}
	if n := strings.Count(got, " 0:0 "); n != strings.Count(got, "\n") {
		t.Errorf("owners of the host are kept:\n%s", got)
	}
	if !strings.Contains(got, "c/bar        104755") {
		t.Errorf("set-user-id is lost:\n%s", got)
	}
}

// TestHeredoc runs the operation of COPY <<EOF: it creates a file in an empty file system
// and copies it to the base.
func TestHeredoc(t *testing.T) {
	c := cp("/EOT", "/x/")
	o := &pb.FileOp{Actions: []*pb.FileAction{
		{Input: -1, SecondaryInput: -1, Output: -1, Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: "/EOT", Mode: 0o644, Data: []byte("hello"), Timestamp: -1}}},
		{Input: 0, SecondaryInput: 1, Output: 0, Action: &pb.FileAction_Copy{Copy: c}},
	}}
	dst, temp := plant(t), t.TempDir()
	must(t, Run(t.Context(), o, Options{Dest: dst, Inputs: []Input{{}}, TempDir: temp}))
	want := ".            040755 0:0 now\nx            040755 0:0 now\nx/EOT        100644 0:0 now \"hello\"\n"
	if diff := cmp.Diff(want, list(t, dst)); diff != "" {
		t.Error(diff)
	}
	if left, _ := os.ReadDir(temp); len(left) != 0 {
		t.Errorf("intermediate results are left: %v", left)
	}
}

// TestFromScratch copies from an empty stage.
func TestFromScratch(t *testing.T) {
	from := func(c *pb.FileActionCopy) *pb.FileOp {
		return &pb.FileOp{Actions: []*pb.FileAction{{SecondaryInput: -1, Action: &pb.FileAction_Copy{Copy: c}}}}
	}
	dst := plant(t)
	must(t, Run(t.Context(), from(cp("/", "/x/y")), Options{Dest: dst, Inputs: []Input{{}}, TempDir: t.TempDir()}))
	want := ".            040755 0:0 now\nx            040755 0:0 now\nx/y          040755 0:0 now\n"
	if diff := cmp.Diff(want, list(t, dst)); diff != "" {
		t.Error(diff)
	}
	err := Run(t.Context(), from(cp("/f", "/x")), Options{Dest: dst, Inputs: []Input{{}}, TempDir: t.TempDir()})
	if err == nil || err.Error() != "lstat /f: no such file or directory" {
		t.Errorf("error %v", err)
	}
}

// TestMalformedPattern expects an error. BuildKit's copy library only finds no files, but
// BuildKit itself fails before it calls the library.
func TestMalformedPattern(t *testing.T) {
	for _, src := range []string{"[x", "foo/[", "*/[b"} {
		err := run(t, op(cp(src, "/w/")), plant(t, file{path: "[x"}, file{path: "foo", mode: os.ModeDir | 0o755}), plant(t))
		if !errors.Is(err, path.ErrBadPattern) {
			t.Errorf("%s: error %v", src, err)
		}
	}
}

func TestMkdirKeepsExisting(t *testing.T) {
	dst := plant(t, file{path: "w", mode: os.ModeDir | 0o711, uid: 5})
	at := int64(1_600_000_000 * 1e9)
	mk := func(p string) error {
		return Run(t.Context(), &pb.FileOp{Actions: []*pb.FileAction{{SecondaryInput: -1, Action: &pb.FileAction_Mkdir{
			Mkdir: &pb.FileActionMkDir{Path: p, Mode: 0o755, MakeParents: true, Owner: byID(7), Timestamp: at},
		}}}}, Options{Dest: dst, Inputs: []Input{{}}})
	}
	must(t, mk("/w"))
	must(t, mk("/n/m"))
	must(t, mk("/n/m/o"))
	want := ".            040755 0:0 1600000000\nn            040755 7:7 1600000000\nn/m          040755 7:7 1600000000\n" +
		"n/m/o        040755 7:7 1600000000\nw            040711 5:0 1500000000\n"
	if diff := cmp.Diff(want, list(t, dst)); diff != "" {
		t.Error(diff)
	}
}

func TestRefused(t *testing.T) {
	mkdir := &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/d", Mode: 0o755, Timestamp: -1}}
	tests := map[string][]*pb.FileAction{
		"nothing":             nil,
		"no action":           {{SecondaryInput: -1}},
		"no output":           {{SecondaryInput: -1, Output: -1, Action: mkdir}},
		"two outputs":         {{SecondaryInput: -1, Action: mkdir}, {Input: 1, SecondaryInput: -1, Output: 1, Action: mkdir}},
		"input of the future": {{Input: 1, SecondaryInput: -1, Action: mkdir}},
		"changed twice": {
			{SecondaryInput: -1, Output: -1, Action: mkdir},
			{Input: 1, SecondaryInput: -1, Output: -1, Action: mkdir},
			{Input: 1, SecondaryInput: -1, Action: mkdir},
		},
	}
	for name, actions := range tests {
		t.Run(name, func(t *testing.T) {
			err := Run(t.Context(), &pb.FileOp{Actions: actions}, Options{Dest: plant(t), Inputs: []Input{{}}})
			if !errors.Is(err, ErrUnsupported) {
				t.Errorf("error %v, want %v", err, ErrUnsupported)
			}
		})
	}
}

func TestRequiredPaths(t *testing.T) {
	src := plant(t, file{path: "a/b", content: "b"})
	parents := func(p string) *pb.FileActionCopy {
		return cp("/", "/x/", func(a *pb.FileActionCopy) {
			a.IncludePatterns, a.RequiredPaths = []string{p}, []string{"/" + p}
		})
	}
	must(t, run(t, op(parents("a/b")), src, plant(t)))
	err := run(t, op(cp("/a/gone", "/x/", func(a *pb.FileActionCopy) {
		a.IncludePatterns, a.RequiredPaths = []string{"c"}, []string{"/a/gone/c"}
	})), src, plant(t))
	if err == nil || err.Error() != `"/a/gone/c": not found` {
		t.Errorf("error %v", err)
	}
	err = run(t, op(parents("a/c")), src, plant(t))
	if err == nil || err.Error() != `"/a/c": not found` {
		t.Errorf("error %v", err)
	}
}

func TestSparse(t *testing.T) {
	src := plant(t, file{path: "s"})
	f, err := os.OpenFile(filepath.Join(src, "s"), os.O_WRONLY, 0)
	must(t, err)
	must(t, f.Truncate(64<<20))
	_, err = f.WriteAt([]byte("middle"), 32<<20)
	must(t, err)
	must(t, f.Close())
	dst := plant(t)
	must(t, run(t, op(cp("s", "/s")), src, dst))
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dst, "s"), &st))
	if st.Size != 64<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d, %d bytes on disk", st.Size, st.Blocks*512)
	}
	got, err := os.ReadFile(filepath.Join(dst, "s"))
	must(t, err)
	if string(got[32<<20:32<<20+6]) != "middle" {
		t.Error("content is lost")
	}
}

func TestSelfCopy(t *testing.T) {
	// This is COPY --from=base / /sub, with the base as its own source.
	dst := plant(t, file{path: "a", content: "a"}, file{path: "d/b", content: "b"})
	o := op(cp("/", "/sub"))
	o.Actions[0].SecondaryInput = 0
	must(t, Run(t.Context(), o, Options{Dest: dst, Inputs: []Input{{}}}))
	if got := list(t, dst); !strings.Contains(got, "sub/d/b") || strings.Contains(got, "sub/sub") {
		t.Errorf("wrong copy:\n%s", got)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Run(ctx, op(cp("/", "/x")), Options{Dest: plant(t), Inputs: []Input{{}, {Root: plant(t, sourceTree...)}}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want cancellation", err)
	}
}

func TestMaterialize(t *testing.T) {
	dir := plant(t, append(sourceTree, file{path: "hidden"})...)
	tree := openTree(t, local.Options{Dir: dir, ExcludePatterns: []string{"hidden", "sock"}})
	dst := t.TempDir()
	got, err := Materialize(t.Context(), tree, "", dst, Options{})
	must(t, err)
	if l := list(t, dst); got != dst || strings.Contains(l, "hidden") || !strings.Contains(l, "hard2        100640 0:0 1500000000 \"hard\" = hard1") {
		t.Errorf("%s:\n%s", got, l)
	}
	dst = t.TempDir()
	got, err = Materialize(t.Context(), tree, "/abs/foo", dst, Options{})
	must(t, err)
	if data, err := os.ReadFile(got); err != nil || string(data) != "f1" {
		t.Errorf("%s holds %q, %v", got, data, err)
	}
}

func TestSelections(t *testing.T) {
	o := op(cp("a*", "/d/", func(a *pb.FileActionCopy) { a.Owner = byName("u", "g") }), cp("b", "/d/"))
	base, err := Selections(o, 0)
	must(t, err)
	want := []local.Selection{
		{Path: "/etc/passwd", FollowLinks: true, Optional: true}, {Path: "/etc/group", FollowLinks: true, Optional: true}, {Path: "/"},
	}
	if diff := cmp.Diff(want, base); diff != "" {
		t.Errorf("base: %s", diff)
	}
	src, err := Selections(o, 1)
	must(t, err)
	want = []local.Selection{{Path: "a*", Wildcard: true, FollowLinks: true}, {Path: "b", Wildcard: true, FollowLinks: true}}
	if diff := cmp.Diff(want, src); diff != "" {
		t.Errorf("source: %s", diff)
	}
}

func TestKey(t *testing.T) {
	key := func(o *pb.FileOp) string {
		k, err := Key(o)
		must(t, err)
		return string(k)
	}
	a := key(op(cp("a", "/d")))
	if a != key(op(cp("a", "/d"))) {
		t.Error("key is not stable")
	}
	for _, other := range []*pb.FileOp{op(cp("b", "/d")), op(cp("a", "/d/")), op(cp("a", "/d", add)), op(cp("a", "/d"), cp("a", "/d"))} {
		if a == key(other) {
			t.Errorf("key does not see the difference to %v", other)
		}
	}
}

// BenchmarkCopy compares a copy of 20,000 small files with cp -a.
func BenchmarkCopy(b *testing.B) {
	src := b.TempDir()
	for d := range 200 {
		dir := filepath.Join(src, fmt.Sprint("dir", d))
		must(b, os.Mkdir(dir, 0o755))
		for f := range 100 {
			must(b, os.WriteFile(filepath.Join(dir, fmt.Sprint("file", f)), make([]byte, 3000), 0o644))
		}
	}
	b.Run("fileop", func(b *testing.B) {
		for b.Loop() {
			must(b, run(b, op(cp("/", "/")), src, b.TempDir()))
		}
	})
	b.Run("cp", func(b *testing.B) {
		for b.Loop() {
			must(b, exec.Command("cp", "-a", src+"/.", b.TempDir()).Run())
		}
	})
}

// TestCopyFromNothing copies from an empty file system, as COPY --from does for a stage
// without content.
func TestCopyFromNothing(t *testing.T) {
	dst := plant(t)
	o := op(cp("/", "/all"))
	o.Actions[0].SecondaryInput = -1
	must(t, run(t, o, plant(t), dst))
	entries, err := os.ReadDir(filepath.Join(dst, "all"))
	if err != nil || len(entries) != 0 {
		t.Errorf("entries %v, %v", entries, err)
	}
}
