package recorded

import (
	"golang.org/x/sys/unix"
)

// stat answers stat(2) and similar calls. If there is no record, the kernel answers.
func (s *Supervisor) stat(n *notification, dirfd int, path uint64, flags int, out uint64) answer {
	name, follow, ok := s.statName(n, dirfd, path, flags)
	if !ok {
		return goOn
	}
	r, ok := s.record(name, follow)
	if !ok {
		return goOn
	}
	var st unix.Stat_t
	if err := unix.Fstatat(s.proc, string(name[:len(name)-1]), &st, noFollow(follow)); err != nil {
		return goOn
	}
	r.Override(&st)
	return fail(s.write(n, out, bytesOf(&st)))
}

// statName returns the name of the file that such a call describes, as Supervisor.name
// does. ok is false if the kernel must answer.
func (s *Supervisor) statName(n *notification, dirfd int, path uint64, flags int) (name []byte, follow, ok bool) {
	tid := int(n.pid)
	var text []byte
	if path != 0 {
		var err error
		if text, err = s.string(tid, path); err != nil {
			return nil, false, false
		}
	}
	if len(text) == 0 {
		if flags&unix.AT_EMPTY_PATH == 0 {
			return nil, false, false
		}
		return s.name(tid, dirfd, nil), true, true
	}
	return s.name(tid, dirfd, text), flags&unix.AT_SYMLINK_NOFOLLOW == 0, true
}

func noFollow(follow bool) int {
	if follow {
		return 0
	}
	return unix.AT_SYMLINK_NOFOLLOW
}

func fstat(s *Supervisor, n *notification) answer {
	return s.stat(n, fdArg(n.args[0]), 0, unix.AT_EMPTY_PATH, n.args[1])
}

func statx(s *Supervisor, n *notification) answer {
	flags := fdArg(n.args[2])
	name, follow, ok := s.statName(n, fdArg(n.args[0]), n.args[1], flags)
	if !ok {
		return goOn
	}
	r, ok := s.record(name, follow)
	if !ok {
		return goOn
	}
	var x unix.Statx_t
	flags = flags&(unix.AT_STATX_FORCE_SYNC|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT) | noFollow(follow)
	if err := unix.Statx(s.proc, string(name[:len(name)-1]), flags, fdArg(n.args[3]), &x); err != nil {
		return goOn
	}
	x.Uid, x.Gid = r.UID, r.GID
	if r.Type != 0 {
		x.Mode = x.Mode&^unix.S_IFMT | uint16(r.Type)
		x.Rdev_major, x.Rdev_minor = unix.Major(r.Rdev), unix.Minor(r.Rdev)
	}
	return fail(s.write(n, n.args[4], bytesOf(&x)))
}
