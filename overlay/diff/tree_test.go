package diff_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay/overlaytest"
)

// tree is a directory of a test. Every error of its methods is fatal.
type tree struct {
	t    *testing.T
	root string
	env  overlaytest.Env
}

func (d tree) path(name string) string { return d.root + "/" + name }

func (d tree) file(name, text string, mode fs.FileMode) {
	d.t.Helper()
	must(d.t, os.WriteFile(d.path(name), []byte(text), 0o600))
	must(d.t, os.Chmod(d.path(name), mode))
}

func (d tree) mkdir(name string, mode fs.FileMode) {
	d.t.Helper()
	must(d.t, os.Mkdir(d.path(name), mode))
}

func (d tree) dirs(names ...string) {
	d.t.Helper()
	for _, name := range names {
		must(d.t, os.MkdirAll(d.path(name), 0o755))
	}
}

func (d tree) remove(name string)     { d.t.Helper(); must(d.t, os.RemoveAll(d.path(name))) }
func (d tree) rename(from, to string) { d.t.Helper(); must(d.t, os.Rename(d.path(from), d.path(to))) }

func (d tree) link(from, to string)      { d.t.Helper(); must(d.t, os.Link(d.path(from), d.path(to))) }
func (d tree) symlink(text, name string) { d.t.Helper(); must(d.t, os.Symlink(text, d.path(name))) }
func (d tree) chmod(name string, mode uint32) {
	d.t.Helper()
	must(d.t, unix.Chmod(d.path(name), mode))
}

func (d tree) chown(name string, uid, gid int) {
	d.t.Helper()
	must(d.t, os.Lchown(d.path(name), uid, gid))
}

func (d tree) mtime(name string, at time.Time) {
	d.t.Helper()
	must(d.t, os.Chtimes(d.path(name), at, at))
}

func (d tree) truncate(name string, size int64) {
	d.t.Helper()
	must(d.t, os.Truncate(d.path(name), size))
}

func (d tree) setxattr(name, attr, value string) {
	d.t.Helper()
	must(d.t, unix.Lsetxattr(d.path(name), attr, []byte(value), 0))
}

func (d tree) setcap(name string) {
	d.t.Helper()
	d.setxattr(name, "security.capability", netRaw)
}

func (d tree) mknod(name string, mode uint32, dev int) {
	d.t.Helper()
	must(d.t, unix.Mknod(d.path(name), mode, dev))
	if mode&0o777 != 0 { // independent of the umask
		d.chmod(name, mode&0o7777)
	}
}

func (d tree) whiteout(name string) {
	d.t.Helper()
	d.mknod(name, unix.S_IFCHR, 0)
}

func (d tree) opaque(name string) {
	d.t.Helper()
	prefix := "trusted.overlay."
	if d.env.UserXattr {
		prefix = "user.overlay."
	}
	d.setxattr(name, prefix+"opaque", "y")
}

// copyUp makes overlayfs copy up directories without changing them. It sets their mode to
// its present value, because creating and deleting entries would change their times.
func (d tree) copyUp(names ...string) {
	d.t.Helper()
	for _, name := range names {
		info, err := os.Stat(d.path(name))
		must(d.t, err)
		must(d.t, os.Chmod(d.path(name), info.Mode()))
	}
}

// deep goes down a chain of directories with long names and creates them if create is
// set. It sets the mode of the last one to its present value, which copies it up in an
// overlay.
func (d tree) deep(depth, length int, create bool) {
	d.t.Helper()
	at, err := unix.Open(d.root, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(d.t, err)
	name := strings.Repeat("x", length)
	for range depth {
		if create {
			must(d.t, unix.Mkdirat(at, name, 0o755))
		}
		next, err := unix.Openat(at, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		must(d.t, err)
		must(d.t, unix.Close(at))
		at = next
	}
	must(d.t, unix.Fchmod(at, 0o755))
	must(d.t, unix.Close(at))
}

func (d tree) shell(script string, args ...string) {
	d.t.Helper()
	cmd := exec.Command("sh", append([]string{"-ec", script}, args...)...)
	cmd.Dir = d.root
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// read lists an archive with archive/tar: type, mode, owner, name, size, link target,
// device numbers, attributes.
func read(t *testing.T, layer []byte) (map[string]*tar.Header, []string) {
	t.Helper()
	hdrs := map[string]*tar.Header{}
	var list []string
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return hdrs, list
		}
		must(t, err)
		if n, err := io.Copy(io.Discard, r); err != nil || n != h.Size {
			t.Fatalf("%s: %d of %d bytes, %v", h.Name, n, h.Size, err)
		}
		if h.Uname != "" || h.Gname != "" || !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
			t.Errorf("%s has more in its header than it should: %+v", h.Name, h)
		}
		hdrs[h.Name] = h
		list = append(list, describe(h))
	}
}

func describe(h *tar.Header) string {
	kind := map[byte]string{
		tar.TypeReg: "-", tar.TypeDir: "d", tar.TypeSymlink: "l", tar.TypeLink: "h",
		tar.TypeChar: "c", tar.TypeBlock: "b", tar.TypeFifo: "p",
	}[h.Typeflag]
	if strings.HasPrefix(filepath.Base(h.Name), ".wh.") {
		kind = "w"
	}
	s := fmt.Sprintf("%s %o %d:%d %s", kind, h.Mode, h.Uid, h.Gid, h.Name)
	if kind != "d" {
		s += fmt.Sprintf(" %d", h.Size)
	}
	if h.Linkname != "" {
		s += " > " + h.Linkname
	}
	if h.Devmajor != 0 || h.Devminor != 0 || kind == "b" || kind == "c" {
		s += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
	}
	var attrs []string
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			attrs = append(attrs, " "+name+"="+v)
		}
	}
	slices.Sort(attrs)
	return s + strings.Join(attrs, "")
}

// snapshot describes all files in a directory, but not the directory itself. Sockets are
// left out, as in layers.
func snapshot(t *testing.T, root string) map[string]string {
	t.Helper()
	seen := map[string]string{}
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		var st unix.Stat_t
		must(t, unix.Lstat(path, &st))
		name := strings.TrimPrefix(path, root+"/")
		kind := st.Mode & unix.S_IFMT
		if kind == unix.S_IFSOCK {
			return nil
		}
		s := fmt.Sprintf("%o %d:%d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
		switch kind {
		case unix.S_IFREG:
			data, err := os.ReadFile(path)
			must(t, err)
			s += fmt.Sprintf(" %x", sha256.Sum256(data))
		case unix.S_IFLNK:
			target, err := os.Readlink(path)
			must(t, err)
			s += " > " + target
		case unix.S_IFCHR, unix.S_IFBLK:
			s += fmt.Sprintf(" %d", st.Rdev)
		}
		if kind != unix.S_IFDIR && st.Nlink > 1 {
			if to, ok := first[st.Ino]; ok {
				s += " = " + to
			} else {
				first[st.Ino] = name
			}
		}
		seen[name] = s + attributes(t, path)
		return nil
	})
	must(t, err)
	return seen
}

func attributes(t *testing.T, path string) string {
	t.Helper()
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	must(t, err)
	var list []string
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		switch {
		case name == "user.containers.override_stat", name == "user.rootlesscontainers":
		case strings.HasPrefix(name, "user.overlay."):
		case strings.HasPrefix(name, "user."), name == "security.capability":
			value := make([]byte, 64<<10)
			n, err := unix.Lgetxattr(path, name, value)
			must(t, err)
			if name == "security.capability" {
				n = min(n, 20) // without the user namespace of the capability
				value[3] = 2
			}
			list = append(list, fmt.Sprintf(" %s=%x", name, value[:n]))
		}
	}
	slices.Sort(list)
	return strings.Join(list, "")
}
