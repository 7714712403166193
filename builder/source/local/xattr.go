package local

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Xattr is an extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// reservedXattrs are the prefixes of xattrs that control a storage driver or a builder.
// If an image could set them, it could forge owners or whiteouts.
var reservedXattrs = []string{
	"user.overlay.", "user.containers.", "user.rootlesscontainers", "user.shale.", "user.fuseoverlayfs.",
}

// CopiesXattr reports whether copies keep the extended attribute name. Copies keep file
// capabilities and the names that start with "user.", except reserved names. Labels and
// ACLs describe the machine, so copies do not keep them.
func CopiesXattr(name string) bool {
	if name == "security.capability" {
		return true
	}
	if !strings.HasPrefix(name, "user.") {
		return false
	}
	return !slices.ContainsFunc(reservedXattrs, func(p string) bool { return strings.HasPrefix(name, p) })
}

// readXattrs returns the xattrs of an open file that copies keep, sorted by name. It
// returns nil if the file system does not support xattrs.
func readXattrs(fd int) ([]Xattr, error) {
	names, err := listXattrs(fd)
	if err != nil {
		return nil, err
	}
	var attrs []Xattr
	for _, name := range names {
		if !CopiesXattr(name) {
			continue
		}
		value, err := getXattr(fd, name)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read attribute %s: %w", name, err)
		}
		attrs = append(attrs, Xattr{Name: name, Value: value})
	}
	slices.SortFunc(attrs, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return attrs, nil
}

func listXattrs(fd int) ([]string, error) {
	buf, err := grow(func(buf []byte) (int, error) { return unix.Flistxattr(fd, buf) })
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list attributes: %w", err)
	}
	return strings.FieldsFunc(string(buf), func(r rune) bool { return r == 0 }), nil
}

func getXattr(fd int, name string) ([]byte, error) {
	return grow(func(buf []byte) (int, error) { return unix.Fgetxattr(fd, name, buf) })
}

// grow calls read with larger buffers until the result fits.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	var stack [256]byte
	buf := stack[:]
	for {
		n, err := read(buf)
		if errors.Is(err, unix.ERANGE) && len(buf) < 1<<20 {
			buf = make([]byte, 4*len(buf))
			continue
		}
		if err != nil {
			return nil, err
		}
		return slices.Clone(buf[:n]), nil
	}
}
