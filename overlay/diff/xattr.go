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

// xattr is an extended attribute that goes into the layer.
type xattr struct {
	name  string
	value []byte
}

// xattrs is what the extended attributes of a file say.
type xattrs struct {
	// records go into the layer, sorted by name.
	records []xattr
	// opaque: nothing below this directory shows through.
	opaque bool
	// whiteout: this empty file stands for a deleted one, see "alternatives
	// to character device whiteouts" in the kernel's documentation, Linux 6.7.
	whiteout bool
	// reference: the contents or the children are in a lower layer.
	reference bool
	// owner is a recorded owner, nil for none.
	owner []byte
}

// xattrScope is what kind of file is asked about.
type xattrScope int

const (
	fileXattrs xattrScope = iota
	dirXattrs
)

const (
	capabilityXattr = "security.capability"
	ownerXattr      = "user.containers.override_stat"
)

// keptXattr reports whether an attribute is part of the image. Symbolic links
// and special files cannot have one that is, see xattr(7).
func keptXattr(name string, scope xattrScope) bool {
	switch name {
	case capabilityXattr:
		return scope == fileXattrs
	case ownerXattr, "user.rootlesscontainers":
		return false
	}
	return strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
}

// readXattrs reads the attributes of an open file or directory. For nearly
// all files the one call that lists them is all it takes.
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

// addMark takes in one of overlayfs's own attributes.
func (x *xattrs) addMark(fd int, name, mark string, scope xattrScope) error {
	switch {
	case mark == "opaque" && scope == dirXattrs:
		value, err := getXattr(fd, name)
		if err != nil {
			return err
		}
		// The other value, "x", says that whiteouts inside may be empty files
		// and hides nothing.
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

// growing calls with ever larger buffers until the answer fits. A filesystem
// without extended attributes has none.
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

// The layout of security.capability, see linux/capability.h.
const (
	capRevisionMask = 0xff000000
	capRevision1    = 0x01000000
	capRevision2    = 0x02000000
	capRevision3    = 0x03000000
	capLen1         = 4 + 2*4
	capLen2         = 4 + 4*4
	capLen3         = capLen2 + 4
)

// plainCapability returns a file capability without the user namespace it is
// bound to: revision 3 adds the id of that namespace's root to revision 2, and
// an image has no such namespace. Inside the namespace the kernel does the
// same on its own.
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
