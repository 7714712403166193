package cachemount

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
)

const (
	attrPrefix = "SCHILY.xattr." // of PAX records, as libarchive and GNU tar write them
	capability = "security.capability"
)

// attributes are what the extended attributes of a file say.
type attributes struct {
	// records are the user.* ones that come along, as PAX records.
	records map[string]string
	// owner is who it belongs to where the file system cannot say so.
	owner *recorded.Record
	// special tells of capabilities, and of files that stand for devices.
	special bool
}

// readAttrs reads the attributes of a file or directory, where the file system has
// such.
func readAttrs(f *os.File) (attributes, error) {
	var a attributes
	size, err := unix.Flistxattr(int(f.Fd()), nil)
	if size == 0 || errors.Is(err, unix.ENOTSUP) {
		return a, nil
	}
	list := make([]byte, max(size, 0))
	if err == nil {
		size, err = unix.Flistxattr(int(f.Fd()), list)
	}
	if err != nil {
		return a, fmt.Errorf("list attributes: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list[:size]), "\x00"), "\x00") {
		if err := a.read(f, name); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *attributes) read(f *os.File, name string) error {
	a.special = a.special || name == capability
	if name != recorded.Attribute && !carried(name) {
		return nil
	}
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX
	n, err := unix.Fgetxattr(int(f.Fd()), name, value)
	if err != nil {
		return fmt.Errorf("read attribute %s: %w", name, err)
	}
	if name == recorded.Attribute {
		rec, err := recorded.Parse(value[:n])
		if err != nil {
			return err
		}
		a.owner, a.special = &rec, a.special || rec.Type != 0
		return nil
	}
	if a.records == nil {
		a.records = map[string]string{}
	}
	a.records[attrPrefix+name] = string(value[:n])
	return nil
}

// carried tells whether an attribute comes along as it is: not those of overlayfs,
// which mean something about other files, nor records of owners, which have a place
// of their own, nor one that a tar cannot name.
func carried(name string) bool {
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") &&
		!strings.HasPrefix(name, "user.containers.") && !strings.Contains(name, "=")
}

// setAttrs gives a new file or directory the attributes of its entry.
func setAttrs(f *os.File, h *tar.Header) error {
	for key, value := range h.PAXRecords {
		attr, ok := strings.CutPrefix(key, attrPrefix)
		if !ok || !carried(attr) {
			continue
		}
		if err := unix.Fsetxattr(int(f.Fd()), attr, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("set attribute %s: %w", attr, err)
		}
	}
	return nil
}

// setOwner gives a new file or directory its owner, recorded where this user
// namespace does not have it.
func (u *unpacker) setOwner(f *os.File, uid, gid int, mode int64) error {
	err := f.Chown(uid, gid)
	if !unmapped(err) {
		return err
	}
	if u.owners.Beside() {
		// A user without a namespace can give it to nobody.
		if err = u.owners.Chown(int(f.Fd()), "", uint32(uid), uint32(gid)); unmapped(err) {
			return nil
		}
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	kind := "file"
	if info.IsDir() {
		kind = "dir"
	}
	value := fmt.Sprintf("%d:%d:%04o:%s", uid, gid, mode&0o7777, kind)
	if err := unix.Fsetxattr(int(f.Fd()), recorded.Attribute, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("record its owner: %w", err)
	}
	return nil
}

// unmapped tells that an owner does not exist in this user namespace, or that
// others than one's own cannot be given.
func unmapped(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrPermission) }
