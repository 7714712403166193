package inplace

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// entry describes a file to create.
type entry struct {
	path string
	// mode includes the file type. It is 0 for a hard link.
	mode uint32
	// what is the content of a file, the target of a symbolic link, or the other path of
	// a hard link.
	what     string
	uid, gid int
	xattrs   map[string]string
}

// dirMode and fileMode are the usual modes.
const (
	dirMode  = unix.S_IFDIR | 0o755
	fileMode = unix.S_IFREG | 0o644
)

// acl is an access control list in the kernel's format (linux/posix_acl_xattr.h). It has
// entries for the owner, a user, the group, the mask, and other users.
var acl = "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x00\x00\x00\x00" +
	"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"

// ownTree is the root directory of a container.
var ownTree = []entry{
	{path: "bin", mode: unix.S_IFLNK | 0o777, what: "usr/bin"},
	{path: "etc", mode: dirMode},
	{path: "etc/passwd", mode: fileMode, what: "root:x:0:0::/root:/bin/sh\n"},
	{path: "etc/shadow", mode: unix.S_IFREG | 0o640, gid: 42, what: "root:*:::::::\n"},
	{path: "home", mode: dirMode, xattrs: map[string]string{"user.whose": "own", "user.own": "yes"}},
	{path: "home/ctx", mode: unix.S_IFDIR | 0o2775, uid: 1000, gid: 1000, xattrs: map[string]string{"system.posix_acl_access": acl}},
	{path: "home/ctx/beside", mode: fileMode, uid: 1000, gid: 1000, what: "hidden from steps"},
	{path: "home/ctx/src", mode: dirMode, uid: 1000, gid: 1000},
	{path: "home/ctx/src/main.c", mode: fileMode, uid: 1000, gid: 1000, what: "int main;"},
	{path: "mnt", mode: dirMode},
	{path: "mnt/vol", mode: dirMode},
	{path: "proc", mode: unix.S_IFDIR | 0o555},
	{path: "store", mode: unix.S_IFDIR | 0o700},
	{path: "store/layers", mode: fileMode, what: "of the build"},
	{path: "tmp", mode: unix.S_IFDIR | 0o1777},
	{path: "usr", mode: dirMode},
	{path: "usr/bin", mode: dirMode},
	{path: "usr/bin/tool", mode: unix.S_IFREG | 0o4755, what: "#!/bin/sh\n"},
	{path: "usr/bin/tool-1.0", what: "usr/bin/tool"},
	{path: "usr/lib", mode: dirMode},
	{path: "usr/lib/other", what: "usr/bin/tool"},
	{path: "usr/bin/ping", mode: unix.S_IFREG | 0o755, what: "ping", xattrs: map[string]string{
		"security.capability": "\x00\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
	}},
	{path: "var", mode: dirMode},
	{path: "var/a name\nof \xff bytes", mode: fileMode, what: "x"},
	{path: "var/empty", mode: unix.S_IFDIR, uid: 7},
	{path: "var/empty/dangling", mode: unix.S_IFLNK | 0o777, what: "/nowhere", uid: 7},
	{path: "var/fifo", mode: unix.S_IFIFO | 0o620, gid: 5},
	{path: "var/log", mode: unix.S_IFDIR | 0o750, uid: 3, gid: 4, xattrs: map[string]string{"user.note": "of a directory"}},
	{path: "var/log/deep", mode: dirMode},
	{path: "var/log/deep/log", mode: unix.S_IFREG | 0o600, uid: 3, what: "line\n", xattrs: map[string]string{"user.note": "of a file"}},
}

// imageTree is the root directory of an image. Some of its paths have another type in
// ownTree.
var imageTree = []entry{
	{path: "bin", mode: dirMode, xattrs: map[string]string{"user.of": "image"}},
	{path: "bin/sh", mode: unix.S_IFREG | 0o755, what: "a shell"},
	{path: "bin/ash", what: "bin/sh"},
	{path: "etc", mode: fileMode, what: "no directory"},
	{path: "opt", mode: unix.S_IFDIR | 0o700, uid: 9, gid: 8},
	{path: "usr", mode: unix.S_IFLNK | 0o777, what: ".."},
	{path: "var", mode: unix.S_IFDIR | 0o1700},
	{path: "var/empty", mode: unix.S_IFLNK | 0o777, what: "../../outside"},
	{path: "var/log", mode: dirMode},
	{path: "var/log/deep", mode: fileMode, what: "a file here"},
	{path: "var/log/new", mode: dirMode},
	{path: "var/log/new/file", mode: fileMode, what: "of the image"},
}

// makeFiles creates files in dir. Each gets a different modification time.
func makeFiles(t *testing.T, dir string, files []entry) {
	t.Helper()
	for _, e := range files {
		if err := makeFile(dir, e); err != nil {
			t.Fatalf("%s: %v", e.path, err)
		}
	}
	for i, e := range slices.Backward(files) {
		when := unix.NsecToTimespec(time.Date(2001, 2, 3, 4, 5, i, 123456789+i, time.UTC).UnixNano())
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, e.path), []unix.Timespec{when, when}, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func makeFile(dir string, e entry) error {
	at := filepath.Join(dir, e.path)
	var err error
	switch e.mode & unix.S_IFMT {
	case 0:
		return os.Link(filepath.Join(dir, e.what), at)
	case unix.S_IFDIR:
		if err = os.Mkdir(at, 0o700); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	case unix.S_IFLNK:
		err = os.Symlink(e.what, at)
	case unix.S_IFREG:
		err = os.WriteFile(at, []byte(e.what), 0o600)
	default:
		err = unix.Mknod(at, e.mode, 0)
	}
	if err == nil && !entered.SingleID() {
		err = os.Lchown(at, e.uid, e.gid)
	}
	if err == nil && e.mode&unix.S_IFMT != unix.S_IFLNK {
		err = unix.Chmod(at, e.mode&0o7777)
	}
	for name, value := range e.xattrs {
		if err == nil {
			err = unix.Lsetxattr(at, name, []byte(value), 0)
		}
	}
	return err
}

func fillOwn(t *testing.T, dir string) {
	t.Helper()
	makeFiles(t, dir, ownTree)
	must(t, unix.Chmod(dir, 0o755))
}

// tree describes all files in dir by path, except those in without and below them. It
// includes all metadata except inode numbers and ctimes.
func tree(t *testing.T, dir string, without ...string) map[string]string {
	t.Helper()
	type inode struct{ dev, ino uint64 }
	links, out := map[inode][]string{}, map[string]string{}
	must(t, filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if rel == hidden || slices.Contains(without, rel) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(file, &st); err != nil {
			return err
		}
		text := fmt.Sprintf("%06o %d:%d", st.Mode, st.Uid, st.Gid)
		// The mtime of the root directory changes with its entries.
		if rel != "." {
			text += " " + time.Unix(st.Mtim.Unix()).UTC().Format(time.RFC3339Nano)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %q", content)
		case unix.S_IFLNK:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			text += " -> " + target
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			id := inode{uint64(st.Dev), st.Ino} //nolint:unconvert // 32 bits on some architectures
			links[id] = append(links[id], rel)
		}
		out[rel] = text + attributes(t, file)
		return nil
	}))
	for _, names := range links {
		slices.Sort(names)
		for _, name := range names[1:] {
			out[name] += " = " + names[0]
		}
	}
	return out
}

func attributes(t *testing.T, file string) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(file, buf)
	must(t, err)
	var list []string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		value := make([]byte, 4096)
		size, err := unix.Lgetxattr(file, name, value)
		must(t, err)
		list = append(list, fmt.Sprintf(" %s=%q", name, value[:size]))
	}
	slices.Sort(list)
	return strings.Join(list, "")
}

// same compares two results of tree.
func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	names := slices.Collect(maps.Keys(want))
	for name := range got {
		if _, ok := want[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if got[name] != want[name] {
			t.Errorf("%q is\n  %s\nwant\n  %s", name, cmp.Or(got[name], "gone"), cmp.Or(want[name], "not there"))
		}
	}
}
