package fileop

import (
	"archive/tar"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay/plain"
)

// TestViewOfLayer changes all files of a hard link view of a layer, in every possible
// way. The files of the layer must not change. The result must equal that of a copy of
// the layer.
func TestViewOfLayer(t *testing.T) {
	layer := []file{
		{path: "bin/busybox", content: "busybox", mode: 0o755},
		{path: "bin/two", content: "two"},
		{path: "d/one", content: "one"},
		{path: "link", content: "bin/busybox", mode: os.ModeSymlink},
		{path: "fifo", mode: os.ModeNamedPipe},
	}
	evil := func(linkname string) tar.Header {
		return tar.Header{Name: "pwn/" + linkname, Linkname: linkname, Typeflag: tar.TypeLink, Mode: 0o4777, Uid: 4242, Gid: 4343}
	}
	archive := tarball(t,
		evil("bin/busybox"), evil("bin/two"), evil("link"), evil("fifo"),
		tar.Header{Name: "own", Mode: 0o600}, tar.Header{Name: "own2", Typeflag: tar.TypeLink, Linkname: "own", Mode: 0o640},
		tar.Header{Name: "own3", Typeflag: tar.TypeLink, Linkname: "own", Mode: 0o644},
		tar.Header{Name: "again", Typeflag: tar.TypeLink, Linkname: "pwn/bin/busybox", Mode: 0o711, Uid: 1},
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 9, PAXRecords: map[string]string{xattrPrefix + "user.x": "y"}},
		tar.Header{Name: "d/one", Mode: 0o600, Uid: 8},
	)
	src := plant(t, file{path: "a.tar", content: string(archive)}, file{path: "bin/busybox", content: "new"},
		file{path: "h/a", content: "h"}, file{path: "h/b", hard: "h/a"})
	owned := func(a *pb.FileActionCopy) { a.Owner, a.Mode = byID(77), 0o4711 }
	for name, o := range map[string]*pb.FileOp{
		"ADD":                  op(cp("a.tar", "/", add)),
		"ADD --chown":          op(cp("a.tar", "/", add, owned)),
		"ADD onto COPY":        op(cp("h", "/h/", owned), cp("a.tar", "/", add)),
		"COPY --chown --chmod": op(cp("bin", "/bin/", owned), cp("bin/busybox", "/link", owned), cp("bin/busybox", "/fifo", owned)),
		"mkdir": {Actions: []*pb.FileAction{{SecondaryInput: -1, Action: &pb.FileAction_Mkdir{
			Mkdir: &pb.FileActionMkDir{Path: "/d", MakeParents: true, Mode: 0o700, Owner: byID(5)},
		}}}},
		"mkfile": {Actions: []*pb.FileAction{{SecondaryInput: -1, Action: &pb.FileAction_Mkfile{
			Mkfile: &pb.FileActionMkFile{Path: "/bin/two", Mode: 0o700, Data: []byte("x"), Owner: byID(5)},
		}}}},
	} {
		t.Run(name, func(t *testing.T) {
			base, view, copied := plant(t, layer...), t.TempDir(), plant(t, layer...)
			before := list(t, base)
			l, err := plain.Stack([]string{base})
			must(t, err)
			must(t, l.Link(view))
			part := func(dir int, name string) error { return plain.Part(nil, dir, name) }
			must(t, Run(t.Context(), o, Options{Dest: view, Inputs: []Input{{}, {Root: src}}, TempDir: t.TempDir(), Part: part}))
			must(t, run(t, o, src, copied))
			if diff := cmp.Diff(before, list(t, base)); diff != "" {
				t.Errorf("the layer changed:\n%s", diff)
			}
			if diff := cmp.Diff(list(t, copied), list(t, view)); diff != "" {
				t.Errorf("a copy and a view differ:\n%s", diff)
			}
			if name == "ADD onto COPY" {
				var st unix.Stat_t
				must(t, unix.Lstat(view+"/h/a", &st))
				if st.Nlink != 2 {
					t.Errorf("/h/a has %d names, want 2", st.Nlink)
				}
			}
		})
	}
}
