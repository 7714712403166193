package diff

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
)

// Clone copies the upper directory src to dst, which must be an empty directory. It keeps
// whiteouts, opaque marks, owners, times, extended attributes and hard links. Package
// builder/rootfs uses it to create a layer that has the contents of an existing layer but
// another parent.
//
// Files in dst are hard links to those of src, so neither tree may be written to
// afterwards. If a file cannot be linked, all files are copied instead; the copies share
// blocks if the file system supports this. Linking fails across file systems (EXDEV), if
// there are too many links (EMLINK), or if it is not permitted (EPERM).
//
// If ctx ends, Clone returns its cause. After an error the caller must remove the
// contents of dst.
func Clone(ctx context.Context, src, dst string) error {
	if err := clone(ctx, src, dst, unix.Linkat); err != nil {
		return fmt.Errorf("clone %s to %s: %w", src, dst, err)
	}
	return nil
}

// linker has the signature of linkat(2).
type linker func(olddir int, oldname string, newdir int, newname string, flags int) error

func clone(ctx context.Context, src, dst string, link linker) error {
	from, err := openAt(unix.AT_FDCWD, src, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from) //nolint:errcheck // read only
	to, err := openAt(unix.AT_FDCWD, dst, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(to) //nolint:errcheck // directories have no delayed errors
	c := cloner{ctx: ctx, root: to, copied: map[inode]string{}, link: link}
	err = c.contents(from, to, "")
	if !errors.Is(err, errNoLink) {
		return err
	}
	if err := empty(to); err != nil {
		return err
	}
	c.link = nil
	return c.contents(from, to, "")
}

// errNoLink is returned if a file cannot be linked. Copying only this file would separate
// it from its other names, so clone starts again and copies the whole tree.
var errNoLink = errors.New("no hard link")

// empty removes the files that were cloned so far.
func empty(fd int) error {
	if _, err := unix.Seek(fd, 0, io.SeekStart); err != nil {
		return err
	}
	list, err := listDir(fd, make([]byte, 32<<10))
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := rmtree.At(fd, e.name); err != nil {
			return err
		}
	}
	return nil
}

// cloner is the state of one Clone.
type cloner struct {
	ctx  context.Context //nolint:containedctx // lives as long as one Clone
	root int
	// copied has the path of the first copy of each file with several names.
	copied map[inode]string
	// link is nil if files are copied.
	link linker
}

// contents clones the entries of a directory and then its metadata, because adding
// entries changes its time. dir is its path with a final slash, "" for the root.
func (c *cloner) contents(from, to int, dir string) error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if _, err := unix.Seek(from, 0, io.SeekStart); err != nil { // a first try has read it to the end
		return err
	}
	list, err := listDir(from, make([]byte, 32<<10))
	if err != nil {
		return atPath("list", dir, err)
	}
	for _, e := range list {
		if err := c.child(from, to, dir+e.name, e); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return err
	}
	if err := copyMetadata(from, to, &st); err != nil {
		return atPath("", dir, err)
	}
	return nil
}

func (c *cloner) child(from, to int, rel string, e dirent) error {
	if c.link != nil && e.kind != unix.DT_DIR && e.kind != unix.DT_UNKNOWN {
		return c.hardLink(from, to, rel, e.name)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(from, e.name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return atPath("stat", rel, err)
	}
	var err error
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return c.directory(from, to, rel, e.name)
	case c.link != nil: // the file system does not report types
		return c.hardLink(from, to, rel, e.name)
	case st.Nlink > 1:
		err = c.copyOnce(from, to, rel, e.name, &st)
	default:
		err = c.copy(from, to, e.name, &st)
	}
	if err != nil {
		return atPath("copy", rel, err)
	}
	return nil
}

// hardLink links a file. It returns errNoLink if the file must be copied instead: it is
// on another file system, it has too many links, or this user may not link to it
// (protected_hardlinks, immutable files).
func (c *cloner) hardLink(from, to int, rel, name string) error {
	err := c.link(from, name, to, name, 0)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EMLINK), errors.Is(err, unix.EPERM):
		return errNoLink
	}
	return atPath("link", rel, err)
}

func (c *cloner) directory(from, to int, rel, name string) error {
	sub, err := openAt(from, name, unix.O_DIRECTORY)
	if err != nil {
		return atPath("open", rel, err)
	}
	defer unix.Close(sub) //nolint:errcheck // read only
	if err := unix.Mkdirat(to, name, 0o700); err != nil {
		return atPath("make", rel, err)
	}
	subTo, err := openAt(to, name, unix.O_DIRECTORY)
	if err != nil {
		return atPath("open", rel, err)
	}
	defer unix.Close(subTo) //nolint:errcheck // directories have no delayed errors
	return c.contents(sub, subTo, rel+"/")
}

// copyOnce copies a file with several names under the first of them. It links the other
// names to the copy.
func (c *cloner) copyOnce(from, to int, rel, name string, st *unix.Stat_t) error {
	first, ok := c.copied[inodeOf(st)]
	if ok {
		return c.linkCopy(first, to, name)
	}
	if err := c.copy(from, to, name, st); err != nil {
		return err
	}
	c.copied[inodeOf(st)] = rel
	return nil
}

func (c *cloner) linkCopy(first string, to int, name string) error {
	dir, base := path.Split(first)
	at := c.root
	if dir != "" {
		fd, err := openBeneath(c.root, strings.TrimSuffix(dir, "/"))
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // read only
		at = fd
	}
	return unix.Linkat(at, base, to, name, 0)
}

// copy copies the file name, with a new inode.
func (c *cloner) copy(from, to int, name string, st *unix.Stat_t) error {
	return copyFile(c.ended, from, to, name, name, st)
}

// copyFile copies the file name to newName, with a new inode.
func copyFile(ended func() error, from, to int, name, newName string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return copyRegular(ended, from, to, name, newName, st)
	case unix.S_IFLNK:
		target, err := readLink(from, name, st.Size)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, to, newName); err != nil {
			return err
		}
	default:
		if err := unix.Mknodat(to, newName, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	if err := unix.Fchownat(to, newName, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, newName, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, newName, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyRegular(ended func() error, from, to int, name, newName string, st *unix.Stat_t) (err error) {
	in, err := openAt(from, name, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), name)
	defer src.Close()
	out, err := unix.Openat(to, newName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), newName)
	defer func() { err = errors.Join(err, dst.Close()) }()
	if unix.IoctlFileClone(out, in) != nil {
		if err := copyContents(ended, dst, src); err != nil {
			return err
		}
	}
	return copyMetadata(in, out, st)
}

// copyPiece is the number of bytes that are copied between two checks of the context.
const copyPiece = 64 << 20

// ended returns the cause of the context if it has ended.
func (c *cloner) ended() error {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	return nil
}

// copyContents copies the contents of src. io.CopyN uses copy_file_range(2) between files
// if possible.
func copyContents(ended func() error, dst, src *os.File) error {
	for {
		if err := ended(); err != nil {
			return err
		}
		_, err := io.CopyN(dst, src, copyPiece)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// copyMetadata copies owner, extended attributes, mode and times of a file or directory.
// The owner must be first, because changing it removes set-id bits and capabilities.
func copyMetadata(from, to int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := copyXattrs(from, to, clonedXattr); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	times := []unix.Timespec{st.Atim, st.Mtim}
	if err := unix.UtimesNanoAt(to, "", times, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func copyXattrs(from, to int, wanted func(string) bool) error {
	names, err := listXattrs(from)
	if err != nil {
		return err
	}
	for raw := range bytes.SplitSeq(names, []byte{0}) {
		name := string(raw)
		if !wanted(name) {
			continue
		}
		value, err := getXattr(from, name)
		if err != nil {
			return fmt.Errorf("read xattr %s: %w", name, err)
		}
		if err := unix.Fsetxattr(to, name, value, 0); err != nil {
			return fmt.Errorf("set xattr %s: %w", name, err)
		}
	}
	return nil
}

// clonedXattr reports whether an extended attribute belongs to the tree. Attributes that
// overlayfs keeps for one particular mount do not, nor do labels that the system assigns.
func clonedXattr(name string) bool {
	for _, prefix := range []string{"user.overlay.", "trusted.overlay."} {
		if mark, ours := strings.CutPrefix(name, prefix); ours {
			switch mark {
			case "origin", "impure", "uuid", "nlink", "upper", "protattr":
				return false
			}
			return true
		}
	}
	return strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "trusted.") ||
		strings.HasPrefix(name, "system.posix_acl_") || name == capabilityXattr
}
