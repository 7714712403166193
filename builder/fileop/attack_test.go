package fileop

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/moby/buildkit/solver/pb"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"
)

// TestLinksStayInside creates symbolic links that lead out of the source and the
// destination. No file outside may be read or written.
func TestLinksStayInside(t *testing.T) {
	outside := plant(t, file{path: "secret", content: "secret"}, file{path: "dir/x", content: "x"})
	before := list(t, outside)
	up := strings.Repeat("../", 40) + outside

	links := []file{
		{path: "abs", content: outside, mode: os.ModeSymlink},
		{path: "up", content: up, mode: os.ModeSymlink},
		{path: "leaf", content: outside + "/secret", mode: os.ModeSymlink},
		{path: "d/in", content: outside + "/dir", mode: os.ModeSymlink},
		{path: "loop", content: "loop", mode: os.ModeSymlink},
		{path: "cwd", content: "/proc/self/cwd", mode: os.ModeSymlink},
	}
	t.Run("source", func(t *testing.T) {
		src := plant(t, links...)
		for _, from := range []string{
			"abs", "abs/", "abs/secret", "up/secret", "leaf", "d/in/x", "abs/*", "le*", "loop", "cwd/.",
			"../../../../../../" + outside + "/secret",
		} {
			dst := plant(t)
			if err := run(t, op(cp(from, "/out/")), src, dst); err == nil {
				t.Errorf("COPY %s succeeded:\n%s", from, list(t, dst))
			}
		}
	})
	t.Run("destination", func(t *testing.T) {
		src := plant(t, file{path: "secret", content: "evil"}, file{path: "d/in/x", content: "evil"}, file{path: "d/y", content: "evil"})
		for _, to := range []string{"/abs/", "/abs/secret", "/up/secret", "/leaf", "/d/in/", "/cwd/", "/abs"} {
			for _, a := range []*pb.FileActionCopy{cp("secret", to), cp("/", to), cp("d", to)} {
				_ = run(t, op(a), src, plant(t, links...)) // some copies fail, for example a directory onto a link
			}
			for _, a := range []*pb.FileAction{
				{Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: to + "/new", MakeParents: true, Mode: 0o755}}},
				{Action: &pb.FileAction_Mkfile{Mkfile: &pb.FileActionMkFile{Path: to, Data: []byte("evil"), Mode: 0o644}}},
				{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: to + "/secret", AllowNotFound: true}}},
				{Action: &pb.FileAction_Rm{Rm: &pb.FileActionRm{Path: to + "/*", AllowWildcard: true}}},
				{Action: &pb.FileAction_Symlink{Symlink: &pb.FileActionSymlink{Oldpath: "x", Newpath: to + "/l"}}},
			} {
				o := &pb.FileOp{Actions: []*pb.FileAction{{Action: a.Action, SecondaryInput: -1}}}
				_ = Run(t.Context(), o, Options{Dest: plant(t, links...), Inputs: []Input{{}}})
			}
		}
	})
	if diff := cmp.Diff(before, list(t, outside)); diff != "" {
		t.Errorf("outside changed:\n%s", diff)
	}
}

// TestUserDatabaseOutside looks up a name through a symbolic link to a file of the host.
func TestUserDatabaseOutside(t *testing.T) {
	outside := plant(t, file{path: "passwd", content: "evil:x:77:77::/:\n"})
	src := plant(t, file{path: "f", content: "f"})
	dst := plant(t, file{path: "etc/passwd", content: outside + "/passwd", mode: os.ModeSymlink})
	must(t, run(t, op(cp("f", "/f", func(a *pb.FileActionCopy) { a.Owner = byName("evil", "") })), src, dst))
	if got := list(t, filepath.Join(dst)); !strings.Contains(got, `f            100644 0:0`) {
		t.Errorf("owner came from outside:\n%s", got)
	}
}

func add(a *pb.FileActionCopy) { a.AttemptUnpackDockerCompatibility = true }

func TestHostileArchives(t *testing.T) {
	outside := plant(t, file{path: "secret", content: "secret"})
	before := list(t, outside)
	link := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}
	}
	hard := func(name, target string) tar.Header {
		return tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}
	}
	up := strings.Repeat("../", 40) + outside
	attacks := map[string][]tar.Header{
		"dot dot":                  {{Name: up + "/x"}},
		"absolute":                 {{Name: outside + "/x"}},
		"through absolute link":    {link("l", outside), {Name: "l/secret"}},
		"through relative link":    {link("l", up), {Name: "l/x"}},
		"through link to link":     {link("a", outside), link("b", "a"), {Name: "b/x"}},
		"through nested link":      {{Name: "d/", Typeflag: tar.TypeDir}, link("d/l", up), {Name: "d/l/x/y"}},
		"link replaced by file":    {link("secret", outside+"/secret"), {Name: "secret"}},
		"hard link outside":        {hard("h", outside+"/secret"), {Name: "h"}},
		"hard link dot dot":        {hard("h", up+"/secret"), {Name: "h"}},
		"hard link through link":   {link("l", outside), hard("h", "l/secret"), {Name: "h"}},
		"hard link to link":        {link("l", outside+"/secret"), hard("h", "l"), {Name: "h"}},
		"directory over link":      {link("l", outside), {Name: "l", Typeflag: tar.TypeDir, Mode: 0o777}, {Name: "l/x"}},
		"directory link's time":    {{Name: "d", Typeflag: tar.TypeDir, Mode: 0o777}, link("d", outside)},
		"whiteout through link":    {link("l", outside), {Name: "l/.wh.secret"}},
		"whiteout device":          {{Name: "secret", Typeflag: tar.TypeChar}},
		"destination is replaced":  {link("./", outside)},
		"fifo through link":        {link("l", outside), {Name: "l/p", Typeflag: tar.TypeFifo}},
		"mode of linked directory": {link("l", outside), {Name: "l/", Typeflag: tar.TypeDir, Mode: 0o777}},
	}
	for name, headers := range attacks {
		t.Run(name, func(t *testing.T) {
			src := plant(t, file{path: "a.tar", content: string(tarball(t, headers...))})
			dst := plant(t)
			err := run(t, op(cp("a.tar", "/in/", add)), src, dst)
			t.Logf("error: %v\n%s", err, list(t, dst))
			if diff := cmp.Diff(before, list(t, outside)); diff != "" {
				t.Errorf("outside changed:\n%s", diff)
			}
			if entries, _ := os.ReadDir(dst); len(entries) > 1 {
				t.Errorf("destination directory left:\n%s", list(t, dst))
			}
			var st unix.Stat_t
			if unix.Lstat(filepath.Join(dst, "in/secret"), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR {
				t.Error("archive made a whiteout")
			}
		})
	}
}

func TestArchiveAttributes(t *testing.T) {
	records := map[string]string{
		xattrPrefix + "user.mine":                     "kept",
		xattrPrefix + "user.overlay.opaque":           "y",
		xattrPrefix + "user.containers.override_stat": "0:0:4755",
		xattrPrefix + "user.rootlesscontainers":       "x",
		xattrPrefix + "trusted.overlay.opaque":        "y",
		xattrPrefix + "security.selinux":              "label",
	}
	src := plant(t, file{path: "a.tar", content: string(tarball(t,
		tar.Header{Name: "f", PAXRecords: records}, tar.Header{Name: "d/", Typeflag: tar.TypeDir, PAXRecords: records}))})
	dst := plant(t)
	must(t, run(t, op(cp("a.tar", "/", add)), src, dst))
	for _, name := range []string{"f", "d"} {
		buf := make([]byte, 4096)
		n, err := unix.Llistxattr(filepath.Join(dst, name), buf)
		must(t, err)
		if diff := cmp.Diff("user.mine\x00", string(buf[:n])); diff != "" {
			t.Errorf("attributes of %s: %s", name, diff)
		}
	}
}

func TestArchive(t *testing.T) {
	plain := tarball(t,
		tar.Header{Name: "implied/dir/f", Uid: 5, Gid: 6, Mode: 0o4750},
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 7},
		tar.Header{Name: "d/h", Typeflag: tar.TypeLink, Linkname: "implied/dir/f", Mode: 0o4750, Uid: 5, Gid: 6},
		tar.Header{Name: "there/x"},
		tar.Header{Name: "s", Typeflag: tar.TypeSymlink, Linkname: "../../benign", Uid: 9},
	)
	pack := func(w func(*bytes.Buffer) (interface {
		Write([]byte) (int, error)
		Close() error
	}, error),
	) string {
		var b bytes.Buffer
		z, err := w(&b)
		must(t, err)
		_, err = z.Write(plain)
		must(t, err)
		must(t, z.Close())
		return b.String()
	}
	type writer = interface {
		Write([]byte) (int, error)
		Close() error
	}
	forms := map[string]string{
		"plain": string(plain),
		"gzip":  pack(func(b *bytes.Buffer) (writer, error) { return gzip.NewWriter(b), nil }),
		"xz":    pack(func(b *bytes.Buffer) (writer, error) { return xz.NewWriter(b) }),
		"zstd":  pack(func(b *bytes.Buffer) (writer, error) { return zstd.NewWriter(b) }),
	}
	want := `.            040755 0:0 1500000000
in           040755 0:0 now
in/d         040700 7:0 1500000000
in/d/h       104750 5:6 1500000000 "implied/dir/f"
in/elsewhere 040755 0:0 now
in/elsewhere/x 100644 0:0 1500000000 "there/x"
in/implied   040755 0:0 now
in/implied/dir 040755 0:0 now
in/implied/dir/f 104750 5:6 1500000000 "implied/dir/f" = in/d/h
in/s         120777 9:0 1500000000 -> ../../benign
in/there     120777 0:0 1500000000 -> /elsewhere
`
	for name, content := range forms {
		t.Run(name, func(t *testing.T) {
			// In the image, the directory "there" of the archive is a symbolic link.
			dst := plant(t, file{path: "in/there", content: "/elsewhere", mode: os.ModeSymlink})
			src := plant(t, file{path: "misnamed.txt", content: content})
			must(t, run(t, op(cp("misnamed.txt", "/in", add)), src, dst))
			if diff := cmp.Diff(want, list(t, dst)); diff != "" {
				t.Errorf("unpacked (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("chown", func(t *testing.T) {
		src, dst := plant(t, file{path: "a", content: string(plain)}), plant(t)
		must(t, run(t, op(cp("a", "/in", add, func(a *pb.FileActionCopy) { a.Owner = byID(33) })), src, dst))
		if got := list(t, filepath.Join(dst, "in/d")); strings.Count(got, " 33:33 ") != 2 {
			t.Errorf("owner not given:\n%s", got)
		}
	})
	t.Run("not asked to", func(t *testing.T) {
		src, dst := plant(t, file{path: "a", content: string(plain)}), plant(t)
		must(t, run(t, op(cp("a", "/a")), src, dst))
		if got, _ := os.ReadFile(filepath.Join(dst, "a")); !bytes.Equal(got, plain) {
			t.Error("archive was not copied as it is")
		}
	})
	t.Run("not an archive", func(t *testing.T) {
		src, dst := plant(t, file{path: "a", content: "text"}, file{path: "empty"}), plant(t)
		must(t, run(t, op(cp("*", "/in/", add)), src, dst))
		if got := list(t, dst); !strings.Contains(got, "in/a ") || !strings.Contains(got, "in/empty ") {
			t.Errorf("files were not copied:\n%s", got)
		}
	})
	t.Run("cut off", func(t *testing.T) {
		// The archive ends in the middle of the last file's content.
		cut := tarball(t, tar.Header{Name: "first"}, tar.Header{Name: strings.Repeat("n", 90)})[:512*3+20]
		src, dst := plant(t, file{path: "a", content: string(cut)}), plant(t)
		if err := run(t, op(cp("a", "/in/", add)), src, dst); err == nil {
			t.Errorf("a cut archive was taken:\n%s", list(t, dst))
		}
	})
	t.Run("absurd size", func(t *testing.T) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		must(t, w.WriteHeader(&tar.Header{Name: "f", Size: 1 << 50, Mode: 0o644}))
		src, dst := plant(t, file{path: "a", content: b.String()}), plant(t)
		if err := run(t, op(cp("a", "/in/", add)), src, dst); !errors.Is(err, ErrBadArchive) {
			t.Errorf("error %v, want %v", err, ErrBadArchive)
		}
	})
}
