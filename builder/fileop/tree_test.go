package fileop

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/source/local"
)

// stampOld is the modification time of files in test trees.
var stampOld = time.Unix(1_500_000_000, 123_000_000)

// file describes an entry of a test tree: a regular file with content, or another type.
type file struct {
	path    string
	mode    fs.FileMode // with type bits; 0 means 0644
	content string      // or the target of a link
	uid     int
	gid     int
	hard    string // path of the entry that this is a hard link to
}

// plant creates a tree in a new directory.
func plant(t testing.TB, files ...file) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	grow(t, dir, files...)
	return dir
}

func grow(t testing.TB, dir string, files ...file) {
	t.Helper()
	for _, f := range files {
		p := filepath.Join(dir, f.path)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		mode := f.mode
		if mode&fs.ModeType == 0 && mode.Perm() == 0 {
			mode |= 0o644
		}
		switch {
		case f.hard != "":
			must(t, os.Link(filepath.Join(dir, f.hard), p))
			continue
		case mode.IsDir():
			must(t, os.MkdirAll(p, 0o755))
		case mode&fs.ModeSymlink != 0:
			must(t, os.Symlink(f.content, p))
		case mode&fs.ModeNamedPipe != 0:
			must(t, unix.Mkfifo(p, 0o600))
		case mode&fs.ModeSocket != 0:
			must(t, unix.Mknod(p, unix.S_IFSOCK|0o600, 0))
		default:
			must(t, os.WriteFile(p, []byte(f.content), 0o600))
		}
		must(t, os.Lchown(p, f.uid, f.gid))
		if mode&fs.ModeSymlink == 0 {
			must(t, os.Chmod(p, mode))
		}
	}
	// Set the deepest first, so that the times of directories stay.
	var all []string
	must(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		all = append(all, p)
		return err
	}))
	sort.Sort(sort.Reverse(sort.StringSlice(all)))
	for _, p := range all {
		must(t, setTimes(unix.AT_FDCWD, p, p, stampOld, stampOld))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list returns a line for every entry below dir. Times other than those of the test trees
// are shown as "now".
func list(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	first := map[uint64]string{}
	must(t, filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		mtime := "now"
		if m := time.Unix(st.Mtim.Unix()); time.Since(m) > time.Hour {
			mtime = fmt.Sprint(m.Unix())
		}
		fmt.Fprintf(&b, "%-12s %06o %d:%d %s", rel, st.Mode, st.Uid, st.Gid, mtime)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(p)
			must(t, err)
			fmt.Fprintf(&b, " -> %s", target)
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			must(t, err)
			if len(data) > 40 {
				data = data[:40]
			}
			fmt.Fprintf(&b, " %q", data)
			if old, ok := first[st.Ino]; ok && st.Nlink > 1 {
				fmt.Fprintf(&b, " = %s", old)
			}
			first[st.Ino] = rel
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// cp returns the copy action of a COPY instruction.
func cp(src, dst string, change ...func(*pb.FileActionCopy)) *pb.FileActionCopy {
	a := &pb.FileActionCopy{
		Src: src, Dest: dst, Mode: -1, Timestamp: -1, FollowSymlink: true, DirCopyContents: true,
		CreateDestPath: true, AllowWildcard: true, AllowEmptyWildcard: true,
	}
	for _, c := range change {
		c(a)
	}
	return a
}

// op returns an operation that copies from input 1 to a result on top of input 0.
func op(copies ...*pb.FileActionCopy) *pb.FileOp {
	o := &pb.FileOp{}
	for i, c := range copies {
		a := &pb.FileAction{SecondaryInput: 1, Output: -1, Action: &pb.FileAction_Copy{Copy: c}}
		if i > 0 {
			a.Input = int64(i + 1)
		}
		o.Actions = append(o.Actions, a)
	}
	o.Actions[len(copies)-1].Output = 0
	return o
}

// run copies from the root file system src to dst.
func run(t testing.TB, o *pb.FileOp, src, dst string) error {
	t.Helper()
	return Run(t.Context(), o, Options{Dest: dst, Inputs: []Input{{}, {Root: src}}, TempDir: t.TempDir()})
}

func byName(user, group string) *pb.ChownOpt {
	o := &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: user}}}}
	if group != "" {
		o.Group = &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: group}}}
	}
	return o
}

func byID(uid uint32) *pb.ChownOpt {
	return &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: uid}}}
}

// tarball returns an archive with these headers. The content of a regular file is its
// name.
func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		var content []byte
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			content = []byte(h.Name)
			h.Size = int64(len(content))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		h.ModTime = stampOld
		must(t, w.WriteHeader(&h))
		_, err := w.Write(content)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

func openTree(t testing.TB, o local.Options) *local.Tree {
	t.Helper()
	tree, err := local.Open(t.Context(), o)
	must(t, err)
	t.Cleanup(func() { must(t, tree.Close()) })
	return tree
}

// withoutDirTimes removes the times of directories from a listing.
func withoutDirTimes(listing string) string {
	lines := strings.Split(listing, "\n")
	for i, l := range lines {
		if f := strings.Fields(l); len(f) > 3 && strings.HasPrefix(f[1], "04") {
			lines[i] = strings.Join(f[:3], " ")
		}
	}
	return strings.Join(lines, "\n")
}
