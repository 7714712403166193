package plain_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/overlay/diff"
	"github.com/shale-build/shale/overlay/plain"
)

// shell runs a script in dir. The scripts set fixed times, so that the digest of a layer
// covers them.
func shell(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-euc", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// list describes a tree in a form that tests can compare.
func list(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `cd "$1" && find . -mindepth 1 \( -type d -printf '%P d %m\n' -o -type l -printf '%P l %l\n' -o -printf '%P %y %m %T@ ' -exec cat {} \; -printf '\n' \) | sort`, "sh", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("list %s: %v\n%s", dir, err, out)
	}
	return string(out)
}

func layer(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	shell(t, dir, script)
	return dir
}

const base = `mkdir -p etc usr/bin var/empty; echo a >etc/a; echo b >etc/b; ln -s a etc/l; echo x >usr/bin/x; ln usr/bin/x usr/bin/y
touch -d @1000000000 etc/a etc/b usr/bin/x; touch -h -d @1000000000 etc/l; touch -d @1000000001 etc usr usr/bin var/empty var`

func TestListing(t *testing.T) {
	for _, tt := range []struct {
		name, upper string
		gone, there []string
	}{
		{"added", "mkdir etc; echo c >etc/c", nil, []string{"etc/a", "etc/c"}},
		{"archive's mark", "mkdir etc; : >etc/.wh.a", []string{"etc/a", "etc/.wh.a"}, []string{"etc/b"}},
		{"archive's opaque mark", "mkdir etc; : >etc/.wh..wh..opq; : >etc/n", []string{"etc/a", "etc/b"}, []string{"etc/n", "usr/bin/x"}},
		{"directory gone", ": >.wh.usr", []string{"usr", "usr/bin/x"}, []string{"etc/a"}},
		{"file over directory", "echo >usr", []string{"usr/bin"}, []string{"usr"}},
		{"directory over file", "mkdir -p etc/a; echo >etc/a/b", nil, []string{"etc/a/b", "etc/b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := plain.Stack([]string{layer(t, tt.upper), layer(t, base)})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range tt.gone {
				if l.Has(p) {
					t.Errorf("%s is still there", p)
				}
			}
			for _, p := range tt.there {
				if !l.Has(p) {
					t.Errorf("%s is missing", p)
				}
			}
		})
	}
}

// TestBecome changes a tree between stacks in random order, with other changes in
// between.
func TestBecome(t *testing.T) {
	lower := layer(t, base)
	one := layer(t, "mkdir etc; echo one >etc/b; : >etc/.wh.a; touch -d @1000000002 etc/b etc")
	two := layer(t, "mkdir -p usr/bin; echo two >usr/bin/y; touch -d @1000000003 usr/bin/y usr/bin usr; : >.wh.var")
	stacks := map[string]*plain.Listing{}
	want := map[string]string{}
	for name, dirs := range map[string][]string{"base": {lower}, "one": {one, lower}, "two": {two, lower}, "both": {two, one, lower}, "none": nil} {
		l, err := plain.Stack(dirs)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := l.Link(dir); err != nil {
			t.Fatal(err)
		}
		stacks[name], want[name] = l, list(t, dir)
	}
	root := t.TempDir()
	tree, err := plain.OpenTree(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	names := []string{"base", "one", "two", "both", "none"}
	random := rand.New(rand.NewSource(1))
	for range 60 {
		name := names[random.Intn(len(names))]
		if err := tree.Become(t.Context(), stacks[name]); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[name], list(t, root)); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", name, diff)
		}
		if random.Intn(2) == 0 {
			tree.Settle()
			tree.Touch()
			shell(t, root, []string{
				"echo bad >new", "rm -rf etc", "mkdir -p usr/bin; echo bad >usr/bin/x", "chmod 700 usr 2>/dev/null || :",
				"rm -rf usr; ln -s /etc usr", "mkdir -p etc; touch -d @1 etc/b", "mv etc gone 2>/dev/null || :",
			}[random.Intn(7)])
		}
	}
}

// A directory whose name begins with a dot is not mistaken for another one when names of
// one file are linked.
func TestLinksInDotDirectory(t *testing.T) {
	l, err := plain.Stack([]string{layer(t, "mkdir .store store; echo hidden >.store/a; ln .store/a .store/b; echo other >store/a; echo root >.r; ln .r r")})
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	tree, err := plain.OpenTree(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := tree.Become(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][2]string{{".store/a", ".store/b"}, {".r", "r"}} {
		var infos [2]os.FileInfo
		for i, name := range names {
			if infos[i], err = os.Stat(filepath.Join(root, name)); err != nil {
				t.Fatal(err)
			}
		}
		if !os.SameFile(infos[0], infos[1]) {
			t.Errorf("%s and %s are not one file", names[0], names[1])
		}
	}
	if got, err := os.ReadFile(filepath.Join(root, ".store", "b")); string(got) != "hidden\n" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// changed returns the list of the layer with the changes. It must not depend on the kind
// of whiteouts.
func changed(t *testing.T, c *plain.Changes) string {
	t.Helper()
	upper, named := t.TempDir(), t.TempDir()
	if err := c.Into(t.Context(), upper); err != nil {
		t.Fatal(err)
	}
	if err := c.IntoWithoutDevices(t.Context(), named); err != nil {
		t.Fatal(err)
	}
	layer := pack(t, diff.Options{Upper: upper, UserXattr: true})
	if diff := cmp.Diff(layer, pack(t, diff.Options{Upper: named, UserXattr: true, NamedMarks: true})); diff != "" {
		t.Errorf("without devices (-with +without):\n%s", diff)
	}
	return layer
}

// pack lists the archive of a layer.
func pack(t *testing.T, o diff.Options) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "layer.tar")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	o.Output = out
	res, err := diff.Pack(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = res.TarSplit.Close(), out.Close()
	names, err := exec.Command("tar", "--numeric-owner", "--full-time", "-tvf", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, names)
	}
	return string(names)
}

func TestChanges(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		want         []string // names in the layer
	}{
		{"nothing", ":", nil},
		{"written without change", "cat etc/a >t; cat t >etc/a; rm t; touch -d @1000000000 etc/a", nil},
		{"same size and time, other content", "printf 'z\n' >etc/a; touch -d @1000000000 etc/a", []string{"etc/", "etc/a"}},
		{"time alone", "touch -d @5 etc/a", []string{"etc/", "etc/a"}},
		{"time of a directory alone", "touch -d @5 etc", nil},
		{"mode", "chmod 600 etc/b", []string{"etc/", "etc/b"}},
		{"mode of a directory", "chmod 700 etc", []string{"etc/"}},
		{"removed", "rm etc/a", []string{"etc/", "etc/.wh.a"}},
		{"directory removed", "rm -r usr", []string{".wh.usr"}},
		{"renamed", "mv etc/a etc/c", []string{"etc/", "etc/.wh.a", "etc/c"}},
		{"directory renamed", "mv etc etc2", []string{".wh.etc", "etc2/", "etc2/a", "etc2/b", "etc2/l"}},
		{"directory made again", "rm -r etc; mkdir etc; touch etc/n", []string{"etc/", "etc/.wh.a", "etc/.wh.b", "etc/.wh.l", "etc/n"}},
		{"linked", "ln etc/a etc/c", []string{"etc/", "etc/a", "etc/c"}},
		{"one of two names removed", "rm usr/bin/y", []string{"usr/", "usr/bin/", "usr/bin/.wh.y"}},
		{"file to directory", "rm etc/a; mkdir etc/a", []string{"etc/", "etc/a/"}},
		{"directory to file", "rm -r usr; : >usr", []string{"usr"}},
		{"link led elsewhere", "ln -sfn b etc/l", []string{"etc/", "etc/l"}},
		{"new in new", "mkdir -p n/m; : >n/m/f", []string{"n/", "n/m/", "n/m/f"}},
		{"fifo", "mkfifo p", []string{"p"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := plain.Stack([]string{layer(t, base)})
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			tree, err := plain.OpenTree(root, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if err := tree.Become(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			tree.Settle()
			tree.Touch()
			shell(t, root, tt.script)
			c, err := tree.Changes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(changed(t, c)) {
				name := strings.Fields(line)[5]
				got = append(got, name)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("names in the layer (-want +got):\n%s", diff)
			}
			// The next Become must undo the changes.
			if err := tree.Become(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			again := t.TempDir()
			if err := l.Link(again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(list(t, again), list(t, root)); diff != "" {
				t.Errorf("restored (-want +got):\n%s", diff)
			}
		})
	}
}

// TestReservedNames checks that a step cannot create a file with the name of a whiteout.
func TestReservedNames(t *testing.T) {
	for _, script := range []string{": >.wh.etc", "mkdir -p n/m; : >n/m/.wh.f", "mkdir .wh.d", "ln -s x etc/.wh.b", ": >etc/.wh..wh..opq"} {
		t.Run(script, func(t *testing.T) {
			l, err := plain.Stack([]string{layer(t, base)})
			if err != nil {
				t.Fatal(err)
			}
			root := t.TempDir()
			tree, err := plain.OpenTree(root, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if err := tree.Become(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			tree.Settle()
			tree.Touch()
			shell(t, root, script)
			c, err := tree.Changes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Into(t.Context(), t.TempDir()); !errors.Is(err, diff.ErrReservedName) {
				t.Errorf("Into: %v", err)
			}
			if err := c.MoveInto(t.Context(), t.TempDir()); !errors.Is(err, diff.ErrReservedName) {
				t.Errorf("MoveInto: %v", err)
			}
		})
	}
}

// TestPart checks Link with paths.
func TestPart(t *testing.T) {
	l, err := plain.Stack([]string{layer(t, base+"; ln -s usr/bin bin; ln -s /etc conf; ln -s up/../../x loop; ln -s loop up")})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		paths       []string
		there, gone []string
	}{
		{[]string{"/etc/a"}, []string{"etc/a"}, []string{"etc/b", "usr"}},
		{[]string{"/bin/"}, []string{"bin", "usr/bin/x"}, []string{"etc"}},
		{[]string{"/conf/new/file"}, []string{"conf", "etc"}, []string{"etc/a", "usr"}},
		{[]string{"/"}, []string{"etc/a", "usr/bin/x", "var/empty"}, nil},
		{[]string{"../../etc"}, []string{"etc/a"}, []string{"usr"}},
		{[]string{"/loop/x"}, []string{"loop"}, []string{"etc"}},
		{[]string{"/usr/bin/x", "/usr"}, []string{"usr/bin/y"}, []string{"etc"}},
		{[]string{"/usr", "/usr/bin/x"}, []string{"usr/bin/y"}, []string{"etc"}},
	} {
		t.Run(fmt.Sprint(tt.paths), func(t *testing.T) {
			dir := t.TempDir()
			if err := l.Link(dir, tt.paths...); err != nil {
				t.Fatal(err)
			}
			for _, p := range tt.there {
				if _, err := os.Lstat(filepath.Join(dir, p)); err != nil {
					t.Error(err)
				}
			}
			for _, p := range tt.gone {
				if _, err := os.Lstat(filepath.Join(dir, p)); err == nil {
					t.Errorf("%s is there", p)
				}
			}
		})
	}
}

// TestSpared checks that spared paths are not changed and do not count as changes.
func TestSpared(t *testing.T) {
	root := t.TempDir()
	shell(t, root, "mkdir -p var/lib/store proc; echo keep >var/lib/store/f; echo keep >proc/f")
	tree, err := plain.OpenTree(root, func() (*plain.Spared, error) { return plain.NewSpared([]string{"var/lib/store", "proc"}), nil })
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	l, err := plain.Stack([]string{layer(t, base+"; mkdir proc; echo image >proc/f")})
	if err != nil {
		t.Fatal(err)
	}
	for _, next := range []*plain.Listing{l, plain.Empty(), l} {
		if err := tree.Become(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		tree.Settle()
		c, err := tree.Changes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.Len() != 0 {
			t.Errorf("what is spared counts as changed: %s", changed(t, c))
		}
		for _, f := range []string{"var/lib/store/f", "proc/f"} {
			if b, err := os.ReadFile(filepath.Join(root, f)); err != nil || string(b) != "keep\n" {
				t.Errorf("%s: %q, %v", f, b, err)
			}
		}
	}
}
