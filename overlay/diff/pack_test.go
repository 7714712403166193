package diff_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/go-archive"
	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	"github.com/vbatts/tar-split/tar/storage"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay"
	"github.com/shale-build/shale/overlay/diff"
	"github.com/shale-build/shale/overlay/overlaytest"
)

// TestPack changes a mounted overlay and compares its layer with the expected one. It
// then applies the layer to the lower tree with Docker's own code. The result must equal
// the contents of the overlay.
func TestPack(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, env overlaytest.Env) {
		for _, c := range scenarios {
			t.Run(c.name, func(t *testing.T) {
				if c.rootOnly && env.UserXattr {
					return // the step itself is refused in a user namespace
				}
				c.run(t, env)
			})
		}
	})
}

type scenario struct {
	name string
	// lower creates the lower layers, bottom first. nil is a layer with only one file.
	lower []func(d tree)
	step  func(d tree)
	want  []string
	// also checks more of the archive.
	also func(t *testing.T, hdrs map[string]*tar.Header)
	// rootOnly is set if a step is refused in every user namespace.
	rootOnly bool
	// noApply is set if Docker's code cannot apply the layer.
	noApply bool
}

var scenarios = []scenario{
	{
		name: "nothing",
		step: func(tree) {},
	},
	{
		name: "files",
		step: func(d tree) {
			d.file("small", "text", 0o644)
			d.file("empty", "", 0o600)
			d.file("block", strings.Repeat("x", 512), 0o644)
			d.file("more", strings.Repeat("y", 513), 0o644)
			d.file("read ahead", strings.Repeat("z", 256<<10), 0o644)
			d.file("streamed", strings.Repeat("a", 256<<10+1), 0o644)
			d.file("large", strings.Repeat("b", 5<<20+77), 0o644)
			d.mkdir("dir", 0o755)
			d.file("dir/f", "f", 0o640)
			d.file("dir.x", "sorted by name, directory first", 0o640)
			d.mkdir("empty dir", 0o700)
		},
		want: []string{
			"- 644 0:0 block 512", "d 755 0:0 dir/", "- 640 0:0 dir/f 1", "- 640 0:0 dir.x 31",
			"- 600 0:0 empty 0", "d 700 0:0 empty dir/", "- 644 0:0 large 5242957",
			"- 644 0:0 more 513", "- 644 0:0 read ahead 262144", "- 644 0:0 small 4", "- 644 0:0 streamed 262145",
		},
	},
	{
		name:  "whiteouts",
		lower: []func(tree){func(d tree) { d.file("a", "a", 0o644); d.dirs("d", "e/f"); d.file("e/g", "g", 0o644) }},
		step:  func(d tree) { d.remove("a"); d.remove("d"); d.remove("e/f") },
		want:  []string{"w 0 0:0 .wh.a 0", "w 0 0:0 .wh.d 0", "d 755 0:0 e/", "w 0 0:0 e/.wh.f 0"},
		also: func(t *testing.T, hdrs map[string]*tar.Header) {
			if got := hdrs[".wh.a"].ModTime; !got.Equal(time.Unix(0, 0)) {
				t.Errorf("whiteout's time is %v", got)
			}
		},
	},
	{
		name:  "opaque directory",
		lower: []func(tree){func(d tree) { d.dirs("d/sub"); d.file("d/f", "f", 0o644) }},
		step:  func(d tree) { d.remove("d"); d.dirs("d/new") },
		want:  []string{"d 755 0:0 d/", "w 0 0:0 d/.wh.f 0", "d 755 0:0 d/new/", "w 0 0:0 d/.wh.sub 0"},
	},
	{
		name: "opaque directory with some of the old names",
		lower: []func(tree){
			func(d tree) {
				d.dirs("d/dir/deep", "d/same", "d/was dir", "d/gone/deep")
				for _, f := range []string{"d/a", "d/dir/b", "d/dir/deep/c", "d/was file", "d/same/kept"} {
					d.file(f, "text", 0o644)
					d.mtime(f, time.Unix(1234, 0))
				}
			},
			func(d tree) { d.dirs("d"); d.file("d/on top", "2", 0o644); d.whiteout("d/hidden") },
		},
		step: func(d tree) {
			d.remove("d")
			d.dirs("d/dir/deep", "d/same", "d/was file")
			d.file("d/was dir", "now a file", 0o644)
			d.file("d/same/kept", "text", 0o644)
			d.mtime("d/same/kept", time.Unix(1234, 0))
			d.file("d/dir/b", "TEXT", 0o644)
			d.mtime("d/dir/b", time.Unix(1234, 0))
		},
		want: []string{
			"d 755 0:0 d/", "w 0 0:0 d/.wh.a 0", "d 755 0:0 d/dir/", "- 644 0:0 d/dir/b 4",
			"d 755 0:0 d/dir/deep/", "w 0 0:0 d/dir/deep/.wh.c 0",
			"w 0 0:0 d/.wh.gone 0", "w 0 0:0 d/.wh.on top 0",
			"- 644 0:0 d/was dir 10", "d 755 0:0 d/was file/",
		},
	},
	{
		name:  "a new directory is not opaque",
		lower: []func(tree){func(d tree) { d.dirs("d") }},
		step:  func(d tree) { d.dirs("new", "d/new/deep") },
		want:  []string{"d 755 0:0 d/", "d 755 0:0 d/new/", "d 755 0:0 d/new/deep/", "d 755 0:0 new/"},
	},
	{
		name: "directory in place of a deleted one",
		lower: []func(tree){
			func(d tree) { d.dirs("d"); d.file("d/f", "f", 0o644) },
			func(d tree) { d.whiteout("d") },
		},
		step: func(d tree) { d.dirs("d") },
		want: []string{"d 755 0:0 d/"},
	},
	{
		name: "directory like one that an opaque one hides",
		lower: []func(tree){
			func(d tree) { d.dirs("d/sub") },
			func(d tree) { d.dirs("d"); d.opaque("d") },
		},
		step: func(d tree) { d.dirs("d/sub") },
		want: []string{"d 755 0:0 d/", "d 755 0:0 d/sub/"},
	},
	{
		name:  "directory in place of a file, file in place of a directory",
		lower: []func(tree){func(d tree) { d.file("a", "a", 0o644); d.dirs("b/c") }},
		step:  func(d tree) { d.remove("a"); d.dirs("a"); d.remove("b"); d.file("b", "b", 0o644) },
		want:  []string{"d 755 0:0 a/", "- 644 0:0 b 1"},
	},
	{
		name:  "opaque directory in an upper layer of the lower stack",
		lower: []func(tree){func(d tree) { d.dirs("d/x") }, func(d tree) { d.dirs("d/y") }, func(d tree) { d.dirs("e") }},
		step:  func(d tree) { d.remove("d"); d.dirs("d/y") },
		want:  []string{"d 755 0:0 d/", "w 0 0:0 d/.wh.x 0"},
	},
	{
		name:  "renamed directory",
		lower: []func(tree){func(d tree) { d.dirs("d"); d.file("d/f", "f", 0o644); d.link("d/f", "d/g") }},
		step:  func(d tree) { d.shell("mv d moved") }, // rename(2) is refused, so mv copies
		want:  []string{"w 0 0:0 .wh.d 0", "d 755 0:0 moved/", "- 644 0:0 moved/f 1", "h 644 0:0 moved/g 0 > moved/f"},
	},
	{
		name: "renamed new directory",
		step: func(d tree) { d.dirs("d/e"); d.file("d/f", "f", 0o644); d.rename("d", "moved") },
		want: []string{"d 755 0:0 moved/", "d 755 0:0 moved/e/", "- 644 0:0 moved/f 1"},
	},
	{
		name:  "copied up directories",
		lower: []func(tree){func(d tree) { d.dirs("same/a/b/c", "mode/a", "owner", "time", "attr", "below/x/y/z", "below/x/u") }},
		step: func(d tree) {
			d.copyUp("same/a/b/c", "below/x/u")
			d.chmod("mode", 0o700)
			d.chown("owner", 1, 2)
			d.mtime("time", time.Unix(1234, 0))
			d.setxattr("attr", "user.a", "b")
			d.file("below/x/y/z/f", "f", 0o644)
		},
		want: []string{
			"d 755 0:0 attr/ user.a=b", "d 755 0:0 below/", "d 755 0:0 below/x/", "d 755 0:0 below/x/y/",
			"d 755 0:0 below/x/y/z/", "- 644 0:0 below/x/y/z/f 1", "d 700 0:0 mode/", "d 755 1:2 owner/",
		},
	},
	{
		name: "unchanged copied up files are left out",
		lower: []func(tree){
			func(d tree) {
				d.dirs("d")
				d.file("d/f", "f", 0o644)
				d.file("d/large", strings.Repeat("l", 3<<20), 0o600)
				d.file("d/empty", "", 0o600)
				d.symlink("f", "d/l")
				d.mknod("d/p", unix.S_IFIFO|0o600, 0)
				d.file("d/cap", "c", 0o755)
				d.setcap("d/cap")
				d.file("d/again", "a", 0o644)
				d.mtime("d/again", time.Unix(1234, 0))
			},
		},
		step: func(d tree) {
			d.copyUp("d/f", "d/large", "d/empty", "d/l", "d/p", "d/cap")
			d.remove("d/again")
			d.file("d/again", "a", 0o644)
			d.mtime("d/again", time.Unix(1234, 999))
			d.file("new", "", 0o644)
			d.remove("new")
		},
	},
	{
		name: "nearly unchanged files",
		lower: []func(tree){
			func(d tree) {
				d.dirs("d")
				for _, f := range []string{"attr", "content", "link", "linked", "mode", "owner", "size", "time", "was link"} {
					d.file("d/"+f, "text", 0o644)
					d.mtime("d/"+f, time.Unix(1234, 0))
				}
				d.file("d/hidden", "text", 0o644)
				d.mtime("d/hidden", time.Unix(1234, 0))
				d.file("d/tick", "text", 0o644)
				d.mtime("d/tick", time.Unix(1234, 5))
			},
			func(d tree) { d.dirs("d"); d.whiteout("d/hidden") },
		},
		step: func(d tree) {
			d.setxattr("d/attr", "user.a", "b")
			for f, text := range map[string]string{"content": "TEXT", "size": "texts", "hidden": "text"} {
				d.file("d/"+f, text, 0o644)
			}
			d.link("d/link", "d/link2")
			d.chmod("d/mode", 0o640)
			d.chown("d/owner", 1, 1)
			d.remove("d/was link")
			d.symlink("text", "d/was link")
			for _, f := range []string{"attr", "content", "hidden", "link", "mode", "owner", "size"} {
				d.mtime("d/"+f, time.Unix(1234, 0))
			}
			d.mtime("d/time", time.Unix(1235, 0))
			d.mtime("d/tick", time.Unix(1234, 6))
		},
		want: []string{
			"d 755 0:0 d/", "- 644 0:0 d/attr 4 user.a=b", "- 644 0:0 d/content 4", "- 644 0:0 d/hidden 4",
			"- 644 0:0 d/link 4", "h 644 0:0 d/link2 0 > d/link", "- 640 0:0 d/mode 4", "- 644 1:1 d/owner 4",
			"- 644 0:0 d/size 5", "- 644 0:0 d/tick 4", "- 644 0:0 d/time 4", "l 777 0:0 d/was link 0 > text",
		},
	},
	{
		name: "hard links",
		step: func(d tree) {
			d.dirs("d")
			d.file("d/first", "text", 0o644)
			d.link("d/first", "d/second")
			d.link("d/first", "a third")
			d.symlink("target", "d/sym")
			d.link("d/sym", "d/sym2")
			d.file("large", strings.Repeat("l", 1<<20), 0o600)
			d.link("large", "large2")
			d.setcap("large")
		},
		want: []string{
			"- 644 0:0 a third 4", "d 755 0:0 d/", "h 644 0:0 d/first 0 > a third", "h 644 0:0 d/second 0 > a third",
			"l 777 0:0 d/sym 0 > target", "h 777 0:0 d/sym2 0 > d/sym",
			"- 600 0:0 large 1048576 security.capability=" + netRaw, "h 600 0:0 large2 0 > large security.capability=" + netRaw,
		},
	},
	{
		name:  "link to a lower file",
		lower: []func(tree){func(d tree) { d.file("a", "a", 0o644) }},
		step:  func(d tree) { d.link("a", "b") },
		want:  []string{"- 644 0:0 a 1", "h 644 0:0 b 0 > a"},
	},
	{
		name: "modes and owners",
		step: func(d tree) {
			d.file("suid", "x", 0o755)
			d.chown("suid", 33, 34)
			d.chmod("suid", 0o4755)
			d.file("sgid", "x", 0o755)
			d.chmod("sgid", 0o2711)
			d.mkdir("tmp", 0o777)
			d.chmod("tmp", 0o1777)
			d.file("none", "x", 0)
			d.file("owned", "", 0o644)
			d.chown("owned", 65534, 60000)
		},
		want: []string{
			"- 0 0:0 none 1", "- 644 65534:60000 owned 0", "- 2711 0:0 sgid 1", "- 4755 33:34 suid 1", "d 1777 0:0 tmp/",
		},
	},
	{
		name: "attributes",
		step: func(d tree) {
			d.file("ping", "x", 0o755)
			d.setcap("ping")
			d.file("user", "x", 0o644)
			d.setxattr("user", "user.b", "2\x00\n=")
			d.setxattr("user", "user.a", "1")
			d.setxattr("user", "user.containers.override_stat", "0:0:0755")
			d.setxattr("user", "user.rootlesscontainers", "x")
			d.file("long", "x", 0o644)
			d.setxattr("long", "user.long", strings.Repeat("v", 2000))
			for i := range 40 {
				d.setxattr("long", fmt.Sprintf("user.%02d%s", i, strings.Repeat("n", 20)), "")
			}
		},
		want: []string{
			"- 644 0:0 long 1 " + manyXattrs() + " user.long=" + strings.Repeat("v", 2000),
			"- 755 0:0 ping 1 security.capability=" + netRaw,
			"- 644 0:0 user 1 user.a=1 user.b=2\x00\n=",
		},
	},
	{
		name: "capability bound to a namespace",
		step: func(d tree) {
			d.file("ping", "x", 0o755)
			d.setxattr("ping", "security.capability", "\x01\x00\x00\x03"+netRaw[4:]+"\xa0\x86\x01\x00")
		},
		want:     []string{"- 755 0:0 ping 1 security.capability=" + netRaw},
		rootOnly: true,
	},
	{
		name: "special files",
		step: func(d tree) {
			d.mknod("fifo", unix.S_IFIFO|0o640, 0)
			d.mknod("sock", unix.S_IFSOCK|0o640, 0)
			d.dirs("only")
			d.mknod("only/sock", unix.S_IFSOCK|0o640, 0)
			d.symlink("/abs/../target", "sym")
			d.symlink(strings.Repeat("t", 300), "sym long")
			d.chown("fifo", 5, 6)
		},
		want: []string{
			"p 640 5:6 fifo 0", "d 755 0:0 only/", "l 777 0:0 sym 0 > /abs/../target",
			"l 777 0:0 sym long 0 > " + strings.Repeat("t", 300),
		},
	},
	{
		name: "devices",
		step: func(d tree) {
			d.mknod("block", unix.S_IFBLK|0o660, int(unix.Mkdev(7, 300)))
			d.mknod("char", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
			d.mknod("zero", unix.S_IFBLK|0o600, 0)
			d.link("char", "char2")
		},
		want: []string{
			"b 660 0:0 block 0 7,300", "c 666 0:0 char 0 1,3", "h 666 0:0 char2 0 > char 1,3", "b 600 0:0 zero 0 0,0",
		},
		rootOnly: true,
	},
	{
		name: "sparse file",
		step: func(d tree) {
			d.file("sparse", "start", 0o644)
			d.truncate("sparse", 3<<20)
		},
		want: []string{"- 644 0:0 sparse 3145728"},
	},
	{
		name: "names",
		step: func(d tree) {
			d.file(strings.Repeat("n", 255), "x", 0o644)
			d.dirs(strings.Repeat("d", 99) + "/" + strings.Repeat("e", 200) + "/" + strings.Repeat("f", 250))
			d.file("\xff\xfe", "not UTF-8", 0o644)
			d.dirs("\x80dir")
			d.symlink("\xfd", "sym")
			d.link("\xff\xfe", "\xff\xff")
			d.file("é ü", "x", 0o644)
			d.file("q\"<&>\\\n\x7f\u2028", "x", 0o644)
			d.file("..x", "x", 0o644)
			d.file(".whx", "x", 0o644)
			d.file(" ", "x", 0o644)
		},
		want: []string{
			"- 644 0:0   1", "- 644 0:0 ..x 1", "- 644 0:0 .whx 1",
			"d 755 0:0 " + strings.Repeat("d", 99) + "/",
			"d 755 0:0 " + strings.Repeat("d", 99) + "/" + strings.Repeat("e", 200) + "/",
			"d 755 0:0 " + strings.Repeat("d", 99) + "/" + strings.Repeat("e", 200) + "/" + strings.Repeat("f", 250) + "/",
			"- 644 0:0 " + strings.Repeat("n", 255) + " 1",
			"- 644 0:0 q\"<&>\\\n\x7f\u2028 1", "l 777 0:0 sym 0 > \xfd", "d 755 0:0 \x80dir/", "- 644 0:0 é ü 1",
			"- 644 0:0 \xff\xfe 9", "h 644 0:0 \xff\xff 0 > \xff\xfe",
		},
	},
	{
		name:  "deeper than a path can say",
		lower: []func(tree){func(d tree) { d.deep(20, 250, true) }},
		step:  func(d tree) { d.deep(20, 250, false) },
		want:  []string{},
		// Docker's code cannot apply it either.
		noApply: true,
	},
	{
		name:    "deep tree with a change",
		step:    func(d tree) { d.deep(20, 250, true) },
		want:    deepDirs(20, 250),
		noApply: true,
	},
	{
		name: "times",
		step: func(d tree) {
			d.file("ns", "x", 0o644)
			d.mtime("ns", time.Unix(1500000000, 999999999))
			d.file("far", "x", 0o644)
			d.mtime("far", time.Unix(1<<33+5, 0))
		},
		want: []string{"- 644 0:0 far 1", "- 644 0:0 ns 1"},
		also: func(t *testing.T, hdrs map[string]*tar.Header) {
			for name, want := range map[string]int64{"ns": 1500000000, "far": 1<<33 + 5} {
				if got := hdrs[name].ModTime; !got.Equal(time.Unix(want, 0)) {
					t.Errorf("%s has time %v", name, got)
				}
			}
			if hdrs["ns"].PAXRecords != nil {
				t.Errorf("extended records without need: %v", hdrs["ns"].PAXRecords)
			}
		},
	},
	{
		name: "time before 1970",
		step: func(d tree) {
			d.file("old", "x", 0o644)
			d.mtime("old", time.Unix(-1000, 500))
		},
		want: []string{"- 644 0:0 old 1"},
		also: func(t *testing.T, hdrs map[string]*tar.Header) {
			if got := hdrs["old"].ModTime; !got.Equal(time.Unix(-1000, 0)) {
				t.Errorf("time is %v", got)
			}
		},
		noApply: true, // Docker changes the time to 1970
	},
	{
		name: "many files",
		step: func(d tree) {
			for i := range 40 {
				sub := fmt.Sprintf("d%02d", i)
				d.dirs(sub)
				for j := range i {
					d.file(fmt.Sprintf("%s/%02d", sub, j), strings.Repeat(sub, j*700), 0o644)
				}
			}
		},
		want: manyFiles(),
	},
}

// netRaw is cap_net_raw=ep in the kernel's format, revision 2.
const netRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func manyXattrs() string {
	var list []string
	for i := range 40 {
		list = append(list, fmt.Sprintf("user.%02d%s=", i, strings.Repeat("n", 20)))
	}
	return strings.Join(list, " ")
}

func deepDirs(depth, length int) (list []string) {
	path := ""
	for range depth {
		path += strings.Repeat("x", length) + "/"
		list = append(list, "d 755 0:0 "+path)
	}
	return list
}

func manyFiles() (list []string) {
	for i := range 40 {
		list = append(list, fmt.Sprintf("d 755 0:0 d%02d/", i))
		for j := range i {
			list = append(list, fmt.Sprintf("- 644 0:0 d%02d/%02d %d", i, j, 3*j*700))
		}
	}
	return list
}

// fixture is a mounted overlay.
type fixture struct {
	overlay.Mount
	env overlaytest.Env
}

func mount(t *testing.T, env overlaytest.Env, lower []func(tree)) fixture {
	t.Helper()
	base := t.TempDir()
	sub := func(name string) string {
		path := filepath.Join(base, name)
		must(t, os.Mkdir(path, 0o755))
		return path
	}
	f := fixture{env: env}
	f.UserXattr = env.UserXattr
	if lower == nil {
		lower = []func(tree){func(d tree) { d.file("lower", "lower", 0o644) }}
	}
	// Add a layer, because the tests also mount the stack without upper, and that needs
	// two.
	lower = append([]func(tree){func(tree) {}}, lower...)
	for i, fill := range lower {
		l := sub(fmt.Sprintf("lower%d", i))
		fill(tree{t, l, env})
		f.Lower = append([]string{l}, f.Lower...)
	}
	f.Upper, f.Work, f.Target = sub("upper"), sub("work"), sub("merged")
	must(t, f.Mount.Mount())
	t.Cleanup(func() { _ = overlay.Unmount(f.Target) })
	return f
}

// pack packs the upper directory with and without output. It checks that both results
// agree.
func (f fixture) pack(t *testing.T) (*diff.Result, []byte) {
	t.Helper()
	var buf bytes.Buffer
	res, err := diff.Pack(t.Context(), diff.Options{Upper: f.Upper, Lower: f.Lower, UserXattr: f.UserXattr, Output: &buf})
	must(t, err)
	t.Cleanup(func() { _ = res.TarSplit.Close() })
	if got := digest.FromBytes(buf.Bytes()); got != res.DiffID {
		t.Errorf("the output's digest is %s, the result says %s", got, res.DiffID)
	}
	if int64(buf.Len()) != res.Size {
		t.Errorf("the output has %d bytes, the result says %d", buf.Len(), res.Size)
	}
	again, err := diff.Pack(t.Context(), diff.Options{Upper: f.Upper, Lower: f.Lower, UserXattr: f.UserXattr})
	must(t, err)
	must(t, again.TarSplit.Close())
	if again.DiffID != res.DiffID {
		t.Errorf("packed twice: %s and %s", res.DiffID, again.DiffID)
	}
	checkTarSplit(t, f.Upper, res, buf.Bytes())
	return res, buf.Bytes()
}

func (c scenario) run(t *testing.T, env overlaytest.Env) {
	f := mount(t, env, c.lower)
	var applied string
	if !c.noApply {
		applied = f.lowerCopy(t)
	}
	c.step(tree{t, f.Target, env})
	must(t, overlay.Unmount(f.Target))

	res, layer := f.pack(t)
	hdrs, list := read(t, layer)
	if d := cmp.Diff(c.want, list, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("layer (-want +got):\n%s", d)
	}
	if res.Files != len(list) {
		t.Errorf("%d entries, the result says %d", len(list), res.Files)
	}
	checkOwners(t, res, hdrs)
	if c.also != nil {
		c.also(t, hdrs)
	}
	if c.noApply {
		return
	}
	seen := f.asLower(t)
	_, err := archive.UnpackLayer(applied, bytes.NewReader(layer), nil)
	must(t, err)
	got := snapshot(t, applied)
	withoutOldTimes(seen, hdrs)
	withoutOldTimes(got, hdrs)
	if d := cmp.Diff(seen, got); d != "" {
		t.Errorf("applied (-overlay +layer):\n%s", d)
	}
}

// withoutOldTimes clears the times of directories that are not in the layer.
func withoutOldTimes(snapshot map[string]string, layer map[string]*tar.Header) {
	for name, text := range snapshot {
		if mode, rest, _ := strings.Cut(text, " "); len(mode) == 5 && mode[0] == '4' && layer[name+"/"] == nil {
			owner, _, _ := strings.Cut(rest, " ")
			snapshot[name] = mode + " " + owner
		}
	}
}

// asLower describes the tree of later steps, in which the upper directory is the topmost
// lower directory.
func (f fixture) asLower(t *testing.T) map[string]string {
	t.Helper()
	next := overlay.Mount{Lower: append([]string{f.Upper}, f.Lower...), Target: t.TempDir(), UserXattr: f.UserXattr}
	must(t, next.Mount())
	defer func() { must(t, overlay.Unmount(next.Target)) }()
	return snapshot(t, next.Target)
}

// lowerCopy copies the merged lower tree to an ordinary directory.
func (f fixture) lowerCopy(t *testing.T) string {
	t.Helper()
	base := t.TempDir()
	ro := overlay.Mount{Lower: f.Lower, Target: filepath.Join(base, "ro"), UserXattr: f.UserXattr}
	must(t, os.Mkdir(ro.Target, 0o755))
	must(t, ro.Mount())
	defer func() { must(t, overlay.Unmount(ro.Target)) }()
	out, err := exec.Command("cp", "-a", ro.Target, filepath.Join(base, "copy")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(base, "copy")
}

func checkOwners(t *testing.T, res *diff.Result, hdrs map[string]*tar.Header) {
	t.Helper()
	var uids, gids []uint32
	for _, h := range hdrs {
		uids = append(uids, uint32(h.Uid))
		gids = append(gids, uint32(h.Gid))
	}
	for _, ids := range []struct{ have, got []uint32 }{{uids, res.UIDs}, {gids, res.GIDs}} {
		slices.Sort(ids.have)
		want := append([]uint32{}, slices.Compact(ids.have)...)
		if d := cmp.Diff(want, ids.got); d != "" {
			t.Errorf("owners (-want +got):\n%s", d)
		}
	}
}

// checkTarSplit checks that the records equal those of tar-split itself, and that the
// archive can be rebuilt from them and the directory.
func checkTarSplit(t *testing.T, upper string, res *diff.Result, layer []byte) {
	t.Helper()
	got, err := io.ReadAll(res.TarSplit)
	must(t, err)
	var want bytes.Buffer
	in, done, err := asm.NewInputTarStreamWithDone(bytes.NewReader(layer), storage.NewJSONPacker(&want), nil)
	must(t, err)
	_, err = io.Copy(io.Discard, in)
	must(t, err)
	must(t, <-done)
	must(t, in.Close())
	if !bytes.Equal(want.Bytes(), got) {
		t.Errorf("tar-split records: want\n%.3000s\ngot\n%.3000s", want.Bytes(), got)
	}
	if longest(t, layer) > 4000 {
		return // the file getter cannot open such long paths
	}
	out := asm.NewOutputTarStream(storage.NewPathFileGetter(upper), storage.NewJSONUnpacker(bytes.NewReader(got)))
	defer out.Close()
	again, err := io.ReadAll(out)
	must(t, err)
	if !bytes.Equal(again, layer) {
		t.Error("the archive cannot be reproduced from its records")
	}
}

func longest(t *testing.T, layer []byte) (n int) {
	t.Helper()
	hdrs, _ := read(t, layer)
	for name := range hdrs {
		n = max(n, len(name))
	}
	return n
}

func TestPackErrors(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, env overlaytest.Env) {
		prefix := "trusted.overlay."
		if env.UserXattr {
			prefix = "user.overlay."
		}
		for _, c := range []struct {
			name string
			make func(d tree)
			want error
		}{
			{"reserved name", func(d tree) { d.dirs("d"); d.file("d/.wh.f", "", 0o644) }, diff.ErrReservedName},
			{"reserved mark", func(d tree) { d.file(".wh..wh..opq", "", 0o644) }, diff.ErrReservedName},
			{"redirect", func(d tree) { d.dirs("d"); d.setxattr("d", prefix+"redirect", "x") }, diff.ErrNotSelfContained},
			{"metacopy", func(d tree) { d.file("f", "", 0o644); d.setxattr("f", prefix+"metacopy", "") }, diff.ErrNotSelfContained},
		} {
			t.Run(c.name, func(t *testing.T) {
				dir := t.TempDir()
				c.make(tree{t, dir, env})
				_, err := diff.Pack(t.Context(), diff.Options{Upper: dir, UserXattr: env.UserXattr})
				if !errors.Is(err, c.want) {
					t.Errorf("got %v", err)
				}
				checkFDs(t)
			})
		}
	})
	t.Run("missing", func(t *testing.T) {
		dir := t.TempDir()
		gone := filepath.Join(dir, "x")
		for _, o := range []diff.Options{{Upper: gone}, {Upper: dir, Lower: []string{dir, gone}}} {
			if _, err := diff.Pack(t.Context(), o); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), gone) {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := diff.Pack(ctx, diff.Options{Upper: t.TempDir()}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("output fails", func(t *testing.T) {
		dir := t.TempDir()
		for i := range 500 {
			sub := filepath.Join(dir, fmt.Sprint(i))
			must(t, os.Mkdir(sub, 0o755))
			write(t, filepath.Join(sub, "f"), make([]byte, 100<<10))
		}
		boom := errors.New("disk full")
		for _, after := range []int{0, 1, 5, 30} {
			_, err := diff.Pack(t.Context(), diff.Options{Upper: dir, Output: &failing{after, boom}})
			if !errors.Is(err, boom) {
				t.Errorf("got %v", err)
			}
		}
		checkFDs(t)
	})
	t.Run("cancelled under way", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "big"), make([]byte, 40<<20))
		ctx, cancel := context.WithCancel(t.Context())
		_, err := diff.Pack(ctx, diff.Options{Upper: dir, Output: writerFunc(func(p []byte) (int, error) {
			cancel()
			return len(p), nil
		})})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		checkFDs(t)
	})
}

type failing struct {
	after int
	err   error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, f.err
	}
	return len(p), nil
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// checkFDs checks that the test left no directory open below its temporary directory.
func checkFDs(t *testing.T) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		to, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err == nil && (strings.HasPrefix(to, os.TempDir()+"/Test") || strings.Contains(to, "tar-split")) {
			t.Errorf("%s is still open", to)
		}
	}
}

// TestXattrWhiteout packs whiteouts that are empty files with an attribute.
func TestXattrWhiteout(t *testing.T) {
	overlaytest.Run(t, func(t *testing.T, env overlaytest.Env) {
		prefix := "trusted.overlay."
		if env.UserXattr {
			prefix = "user.overlay."
		}
		dir, lower := t.TempDir(), t.TempDir()
		d := tree{t, dir, env}
		d.dirs("d")
		d.setxattr("d", prefix+"opaque", "x")
		d.file("d/gone", "", 0o644)
		d.setxattr("d/gone", prefix+"whiteout", "y")
		d.file("d/not empty", "x", 0o644)
		d.setxattr("d/not empty", prefix+"whiteout", "y")
		l := tree{t, lower, env}
		l.dirs("d")
		l.file("d/gone", "", 0o644)
		f := fixture{overlay.Mount{Upper: dir, Lower: []string{lower}, UserXattr: env.UserXattr}, env}
		var buf bytes.Buffer
		res, err := diff.Pack(t.Context(), diff.Options{Upper: f.Upper, Lower: f.Lower, UserXattr: f.UserXattr, Output: &buf})
		must(t, err)
		must(t, res.TarSplit.Close())
		_, list := read(t, buf.Bytes())
		want := []string{"d 755 0:0 d/", "w 0 0:0 d/.wh.gone 0", "- 644 0:0 d/not empty 1"}
		if d := cmp.Diff(want, list); d != "" {
			t.Error(d)
		}
	})
}

// TestPackEmptyDiffID checks the diffID of a layer without changes, which is the same for
// every builder.
func TestPackEmptyDiffID(t *testing.T) {
	res, err := diff.Pack(t.Context(), diff.Options{Upper: t.TempDir()})
	must(t, err)
	must(t, res.TarSplit.Close())
	const want = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
	if res.DiffID != want || res.Size != 1024 || res.Files != 0 {
		t.Errorf("got %+v", res)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
