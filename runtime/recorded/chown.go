package recorded

import (
	"errors"

	"golang.org/x/sys/unix"
)

func fchown(s *Supervisor, n *notification) answer {
	return s.chown(n, fdArg(n.args[0]), 0, unix.AT_EMPTY_PATH, n.args[1], n.args[2])
}

func fchownat(s *Supervisor, n *notification) answer {
	return s.chown(n, fdArg(n.args[0]), n.args[1], fdArg(n.args[4]), n.args[2], n.args[3])
}

// chown records an owner. The file is given to root in earnest first: that copies
// it up, changes its time, clears set-id bits and capabilities, and fails, where it
// would do so with all ids.
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

// unreachable is the answer for a file that only the caller itself can open: its
// pipes, sockets and what /proc links to. They are in no image, and many an
// image gives /dev/stdout to a user.
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

// give carries out a change of owner by someone with credentials c.
func (s *Supervisor) give(fd int, c creds, uid, gid uint32) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	r, known := s.recordOf(fd)
	if kind := st.Mode & unix.S_IFMT; !known && (kind == unix.S_IFIFO || kind == unix.S_IFCHR) && !c.capable() {
		return nil // standard streams belong to the step's first user
	}
	if !c.capable() {
		owner := r.UID == c.uid.fs
		if !owner || uid != same && uid != r.UID || gid != same && gid != r.GID && !c.inGroup(gid) {
			return unix.EPERM
		}
	}
	err := unix.Fchownat(fd, "", 0, 0, unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		return nil // a file of the host that is mounted into the step
	}
	if err != nil {
		return err
	}
	if s.tier == TierSquash {
		uid, gid = 0, 0
	}
	to := r
	to.UID, to.GID = pick(uid, r.UID), pick(gid, r.GID)
	return s.setRecord(fd, st.Mode, to)
}
