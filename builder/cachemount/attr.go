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
	attrPrefix = "SCHILY.xattr." // of PAX records, as in libarchive and GNU tar
	capability = "security.capability"
)

// attributes is the information in the extended attributes of a file.
type attributes struct {
	// records are the user.* attributes that are packed, as PAX records.
	records map[string]string
	// owner is the owner of the file if the file system cannot store it.
	owner *recorded.Record
	// special is true if the file has capabilities or stands for a device.
	special bool
}

// readAttrs returns the attributes of a file or directory. If the file system does not
// support extended attributes, there are none.
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
	value := make([]byte, 64<<10) // XATTR_SIZE_MAX of the kernel
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

// carried reports whether an attribute is packed unchanged. Attributes of overlayfs are
// not, because they refer to other files. Recorded owners are not, because they have
// their own place in the tar. A name with "=" is not possible in a PAX record.
func carried(name string) bool {
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.") &&
		!strings.HasPrefix(name, "user.containers.") && !strings.Contains(name, "=")
}

// setAttrs sets the attributes of a new file or directory to those of its tar entry.
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

// setOwner sets the owner of a new file or directory. If the owner is not mapped in this
// user namespace, setOwner records it.
func (u *unpacker) setOwner(f *os.File, uid, gid int, mode int64) error {
	err := f.Chown(uid, gid)
	if !unmapped(err) {
		return err
	}
	if u.owners.Beside() {
		// Without a user namespace, other owners cannot be set. Ignore that.
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

// unmapped reports whether err means that an owner is not mapped in this user namespace,
// or that the process may only set its own owner.
func unmapped(err error) bool { return errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrPermission) }
