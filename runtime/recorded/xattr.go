package recorded

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// The xattr with the record is hidden from steps. Otherwise programs that copy xattrs
// would copy the owner by mistake. Steps cannot set it either.

func listxattr(follow bool) func(*Supervisor, *notification) answer {
	return func(s *Supervisor, n *notification) answer {
		flags := noFollow(follow)
		return s.listxattr(n, unix.AT_FDCWD, n.args[0], flags)
	}
}

func flistxattr(s *Supervisor, n *notification) answer {
	if s.namesOnly(n) {
		return goOn // the kernel returns the error
	}
	return s.listxattr(n, fdArg(n.args[0]), 0, unix.AT_EMPTY_PATH)
}

func (s *Supervisor) listxattr(n *notification, dirfd int, path uint64, flags int) answer {
	name, follow, ok := s.statName(n, dirfd, path, flags)
	if !ok {
		return goOn
	}
	if _, ok := s.record(name, follow); !ok {
		return goOn
	}
	list := unix.Llistxattr
	if follow {
		list = unix.Listxattr
	}
	buf := make([]byte, 64<<10) // the kernel's limit, XATTR_LIST_MAX
	got, err := list(string(name[:len(name)-1]), buf)
	if err != nil {
		return goOn
	}
	names := append([]byte{0}, buf[:got]...)
	hidden := append(append([]byte{0}, Attribute...), 0)
	if i := bytes.Index(names, hidden); i >= 0 {
		names = append(names[:i], names[i+len(hidden)-1:]...)
	}
	names = names[1:]
	room := n.args[2]
	switch {
	case room == 0 || len(names) == 0:
		return value(len(names))
	case room < uint64(len(names)):
		return fail(unix.ERANGE)
	}
	if err := s.write(n, n.args[1], names); err != nil {
		return fail(err)
	}
	return value(len(names))
}

// setxattr also reports success for access control lists with ids that are not mapped. No
// layer contains access control lists, so only the error of the kernel is lost.
func setxattr(s *Supervisor, n *notification) answer {
	name, err := s.string(int(n.pid), n.args[1])
	if err != nil {
		return goOn
	}
	switch string(name) {
	case Attribute:
		return fail(unix.EPERM)
	case "system.posix_acl_access", "system.posix_acl_default":
		if s.namesOthers(int(n.pid), n.args[2], n.args[3]) {
			return answer{}
		}
	}
	return goOn
}

// Format of an access control list, from linux/posix_acl_xattr.h: a version, and then
// entries with tag, permissions and id.
const (
	aclHeader = 4
	aclEntry  = 8
	aclUser   = 0x02
	aclGroup  = 0x08
)

func (s *Supervisor) namesOthers(tid int, at, size uint64) bool {
	if size < aclHeader || size > 64<<10 {
		return false
	}
	data := make([]byte, size)
	for got := 0; got < len(data); {
		m, err := read(tid, at+uint64(got), data[got:min(len(data), got+pageSize)])
		if err != nil || m == 0 {
			return false
		}
		got += m
	}
	for e := data[aclHeader:]; len(e) >= aclEntry; e = e[aclEntry:] {
		tag, id := binary.LittleEndian.Uint16(e), binary.LittleEndian.Uint32(e[4:])
		if (tag == aclUser || tag == aclGroup) && id != 0 {
			return true
		}
	}
	return false
}

func removexattr(s *Supervisor, n *notification) answer {
	name, err := s.string(int(n.pid), n.args[1])
	if err == nil && string(name) == Attribute {
		return fail(unix.ENODATA)
	}
	if err != nil && !errors.Is(err, unix.EFAULT) {
		return fail(err)
	}
	return goOn
}
