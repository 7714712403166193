package recorded

import (
	"errors"

	"golang.org/x/sys/unix"
)

func fchown(s *Supervisor, n *notification) answer {
	if s.namesOnly(n) {
		return fail(unix.EBADF)
	}
	return s.chown(n, fdArg(n.args[0]), 0, unix.AT_EMPTY_PATH, n.args[1], n.args[2])
}

func fchownat(s *Supervisor, n *notification) answer {
	return s.chown(n, fdArg(n.args[0]), n.args[1], fdArg(n.args[4]), n.args[2], n.args[3])
}

// chown records an owner. First it changes the owner of the file to root with a real
// fchownat. As with all ids mapped, this call copies the file up, changes its ctime,
// clears set-id bits and capabilities, and may fail.
func (s *Supervisor) chown(n *notification, dirfd int, path uint64, flags int, uidArg, gidArg uint64) answer {
	if flags&^(unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW) != 0 {
		return fail(unix.EINVAL)
	}
	tid := int(n.pid)
	var text []byte
	if path != 0 {
		var err error
		if text, err = s.string(tid, path); err != nil {
			return fail(err)
		}
	}
	if len(text) == 0 && flags&unix.AT_EMPTY_PATH == 0 {
		return fail(unix.ENOENT)
	}
	var how uint64
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		how = unix.O_NOFOLLOW
	}
	fd, err := s.find(tid, dirfd, text, how)
	if err != nil {
		return s.unreachable(tid, dirfd, text, err)
	}
	defer unix.Close(fd) //nolint:errcheck // O_PATH
	c, err := s.creds(tid)
	if err != nil {
		return fail(err)
	}
	if !s.listener.valid(n.id) {
		return fail(unix.ESRCH)
	}
	return fail(s.give(fd, c, idArg(uidArg), idArg(gidArg)))
}

// unreachable returns the answer for a file that only the caller can open, for example
// its pipes, its sockets and the targets of links in /proc. It reports success, because
// these files are in no image. Many images change the owner of /dev/stdout.
func (s *Supervisor) unreachable(tid, dirfd int, path []byte, err error) answer {
	switch {
	case len(path) == 0 && errors.Is(err, unix.ENXIO), errors.Is(err, errMagic):
		return answer{}
	case errors.Is(err, unix.ENOENT):
		var st unix.Stat_t
		name := s.name(tid, dirfd, path)
		if unix.Fstatat(s.proc, string(name[:len(name)-1]), &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
			var buf [16]byte
			m, err := unix.Readlinkat(s.proc, string(name[:len(name)-1]), buf[:])
			if err == nil && m >= 6 && string(buf[:6]) == "/proc/" {
				return answer{}
			}
		}
	}
	return fail(err)
}

// give changes the owner of an open file. c are the credentials of the caller.
func (s *Supervisor) give(fd int, c creds, uid, gid uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	r, known := s.recordOf(fd)
	if kind := st.Mode & unix.S_IFMT; !known && (kind == unix.S_IFIFO || kind == unix.S_IFCHR) && !c.capable() {
		return nil // standard streams belong to the step's first user
	}
	if !c.mayChown(st.Mode, r, uid, gid) {
		if readOnly(fd) {
			return unix.EROFS
		}
		return unix.EPERM
	}
	err := unix.Fchownat(fd, "", 0, 0, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		return nil // a mounted file of the host, whose owner is not mapped
	}
	if err != nil {
		return err
	}
	if mode := st.Mode &^ (unix.S_ISUID | unix.S_ISGID); c.chownClears(st.Mode, r)&unix.S_ISGID != 0 {
		// The kernel did not clear the set-gid bit, because the supervisor is root.
		if err := unix.Fchmodat(s.proc, own(fd), mode&0o7777, 0); err != nil {
			return err
		}
	}
	if s.tier == TierSquash {
		uid, gid = squash(uid), squash(gid)
	}
	to := r
	to.UID, to.GID = pick(uid, r.UID), pick(gid, r.GID)
	return s.setRecord(fd, st.Mode, to)
}

func squash(id uint32) uint32 {
	if id == same {
		return same
	}
	return 0
}

// readOnly reports whether the mount of an open file is read-only.
func readOnly(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Flags&unix.ST_RDONLY != 0
}

// mayChown reports whether chown(2) permits the change for a file with this mode and
// owner. Every caller may leave both ids unchanged, but not if that would clear set-id
// bits.
func (c creds) mayChown(mode uint32, r Record, uid, gid uint32) bool {
	switch {
	case c.capable():
		return true
	case c.uid.fs == r.UID:
		return (uid == same || uid == r.UID) && (gid == same || gid == r.GID || c.inGroup(gid))
	}
	return uid == same && gid == same && c.chownClears(mode, r) == 0
}

// chownClears returns the set-id bits that chown(2) clears. A directory keeps them. A
// set-gid bit without group execute permission, which once enabled mandatory locks, is
// cleared only if the caller is neither capable nor in the file's group.
func (c creds) chownClears(mode uint32, r Record) uint32 {
	bits := mode & (unix.S_ISUID | unix.S_ISGID)
	switch {
	case mode&unix.S_IFMT == unix.S_IFDIR:
		return 0
	case mode&unix.S_IXGRP == 0 && (c.capable() || c.inGroup(r.GID)):
		return bits &^ unix.S_ISGID
	}
	return bits
}
