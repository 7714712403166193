package plain_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/overlay/plain"
)

// MoveInto must produce the same layer as Into. It must move a new directory as a whole.
func TestMoveInto(t *testing.T) {
	below := layer(t, base)
	l, err := plain.Stack([]string{below})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "linked")
	for _, d := range []string{dir, dir + ".copied", dir + ".moved"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Link(dir); err != nil {
		t.Fatal(err)
	}
	tree, err := l.OpenLinked(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	tree.Settle()
	// new-x sorts between new and the contents of new. Two names of one file are in
	// different directories.
	shell(t, dir, `mkdir -p new/sub/deep usr/made meet; echo 1 >new/sub/f; echo 2 >new-x; ln new/sub/f new/sub/deep/g; ln new/sub/f usr/made/h
rm etc/b; echo c >etc/c; rm -r var/empty; echo file >var/empty; chmod 2750 new/sub
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("meet/socket")'; echo 3 >meet/f
find new new-x usr/made etc/c var/empty meet -exec touch -h -d @1000000002 {} +; touch -d @1000000003 etc usr var`)
	inode := func(name string) os.FileInfo {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	made := inode(filepath.Join(dir, "new"))
	c, err := tree.Changes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Into(t.Context(), dir+".copied"); err != nil {
		t.Fatal(err)
	}
	if err := c.MoveInto(t.Context(), dir+".moved"); err != nil {
		t.Fatal(err)
	}
	details := func(dir string) string {
		out, err := exec.Command("sh", "-c", `cd "$1" && find . -mindepth 1 -type c -printf '%P gone\n' -o -mindepth 1 -type f -printf '%P %m %U:%G %T@ ' -exec cat {} \; -o -mindepth 1 -printf '%P %y %m %U:%G %T@\n' | sort`, "sh", dir).CombinedOutput()
		if err != nil {
			t.Fatalf("list %s: %v\n%s", dir, err, out)
		}
		return string(out)
	}
	if d := cmp.Diff(details(dir+".copied"), details(dir+".moved")); d != "" {
		t.Errorf("copied and moved are not the same (-copied +moved):\n%s", d)
	}
	if !os.SameFile(made, inode(filepath.Join(dir+".moved", "new"))) {
		t.Error("a new directory was made again")
	}
	if !os.SameFile(inode(filepath.Join(dir+".moved", "new/sub/f")), inode(filepath.Join(dir+".moved", "usr/made/h"))) {
		t.Error("two names of one file were parted")
	}
	if _, err := os.Lstat(filepath.Join(dir+".moved", "meet/socket")); !os.IsNotExist(err) {
		t.Errorf("a socket got into a layer: %v", err)
	}
}
