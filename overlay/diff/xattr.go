package diff

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"strings"

	"golang.org/x/sys/unix"
)

// xattr is an extended attribute that is added to the layer.
type xattr struct {
	name  string
	value []byte
}

// xattrs describes a file by its extended attributes.
type xattrs struct {
	// records are added to the layer, sorted by name.
	records []xattr
	// opaque is set if the directory hides the directories below it.
	opaque bool
	// whiteout is set if the empty file represents a deleted name, see "alternatives to
	// character device whiteouts" in the kernel's overlayfs documentation, Linux 6.7.
	whiteout bool
	// reference is set if the contents or children are in a lower layer.
	reference bool
	// owner is the attribute with a recorded owner, nil if there is none.
	owner []byte
}

// xattrScope is the kind of file that the attributes belong to.
type xattrScope int

const (
	fileXattrs xattrScope = iota
	dirXattrs
)

const (
	capabilityXattr = "security.capability"
	ownerXattr      = "user.containers.override_stat"
)

// keptXattr reports whether an extended attribute is part of the image. Symbolic links
// and special files cannot have such attributes, see xattr(7).
func keptXattr(name string, scope xattrScope) bool {
	switch name {
	case capabilityXattr:
		return scope == fileXattrs
	case ownerXattr, "user.rootlesscontainers":
		return false
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// readXattrs reads the extended attributes of an open file or directory. For nearly all
// files this takes only one system call, which lists them.
func readXattrs(fd int, prefix string, scope xattrScope) (xattrs, error) {
	names, err := listXattrs(fd)
	if err != nil || len(names) == 0 {
		return xattrs{}, err
	}
	var x xattrs
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		if err := x.add(fd, string(name), prefix, scope); err != nil {
			return xattrs{}, fmt.Errorf("xattr %s: %w", name, err)
		}
	}
	sort.Slice(x.records, func(i, j int) bool { return x.records[i].name < x.records[j].name })
	return x, nil
}

func (x *xattrs) add(fd int, name, prefix string, scope xattrScope) error {
	if mark, ours := strings.CutPrefix(name, prefix); ours {
		return x.addMark(fd, name, mark, scope)
	}
	if name == ownerXattr {
		value, err := getXattr(fd, name)
		x.owner = value
		return err
	}
	if !keptXattr(name, scope) {
		return nil
	}
	value, err := getXattr(fd, name)
	if err != nil {
		return err
	}
	if name == capabilityXattr {
		if value, err = plainCapability(value); err != nil {
			return err
		}
	}
	x.records = append(x.records, xattr{name, value})
	return nil
}

// addMark adds an attribute of overlayfs itself.
func (x *xattrs) addMark(fd int, name, mark string, scope xattrScope) error {
	switch {
	case mark == "opaque" && scope == dirXattrs:
		value, err := getXattr(fd, name)
		if err != nil {
			return err
		}
		// The other value, "x", only allows empty files as whiteouts inside the
		// directory; it does not hide anything.
		x.opaque = string(value) == "y"
	case mark == "whiteout" && scope == fileXattrs:
		x.whiteout = true
	case mark == "redirect" && scope == dirXattrs, mark == "metacopy" && scope == fileXattrs:
		x.reference = true
	}
	return nil
}

func listXattrs(fd int) ([]byte, error) {
	return growing(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) })
}

func getXattr(fd int, name string) ([]byte, error) {
	return growing(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
}

// growing repeats call with larger buffers until the result fits. If the file system does
// not support extended attributes, the result is empty.
func growing(call func([]byte) (int, error)) ([]byte, error) {
	var small [256]byte
	buf := small[:]
	for {
		n, err := retry(func() (int, error) { return call(buf) })
		switch {
		case err == nil:
			return bytes.Clone(buf[:n]), nil
		case errors.Is(err, unix.ERANGE):
			buf = make([]byte, 16*len(buf))
		case errors.Is(err, unix.ENOTSUP):
			return nil, nil
		default:
			return nil, err
		}
	}
}

// The format of security.capability, see linux/capability.h.
const (
	capRevisionMask = 0xff000000
	capRevision1    = 0x01000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capLen1         = 4 + 2*4
	capLen2         = 4 + 4*4
	capLen3         = capLen2 + 4
)

// plainCapability returns a file capability without the user namespace that it is bound
// to. Revision 3 adds the id of the root of that namespace to revision 2. An image has no
// such namespace, so the result is revision 2. In the namespace itself the kernel already
// returns revision 2.
func plainCapability(value []byte) ([]byte, error) {
	if len(value) < 4 {
		return nil, fmt.Errorf("file capability of %d bytes", len(value))
	}
	magic := binary.LittleEndian.Uint32(value)
	revision := magic & capRevisionMask
	switch {
	case revision == capRevision1 && len(value) == capLen1,
		revision == capRevision2 && len(value) == capLen2:
		return value, nil
	case revision == capRevision3 && len(value) == capLen3:
		plain := bytes.Clone(value[:capLen2])
		binary.LittleEndian.PutUint32(plain, magic&^capRevisionMask|capRevision2)
		return plain, nil
	}
	return nil, fmt.Errorf("file capability of revision %#x and %d bytes", revision, len(value))
}
