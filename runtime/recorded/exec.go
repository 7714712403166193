package recorded

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// moved notes that a process changes its root directory; from then on each call
// is answered with the root of who makes it.
func moved(s *Supervisor, _ *notification) answer {
	s.fast.move()
	return goOn
}

func execve(s *Supervisor, n *notification) answer {
	s.execute(n, unix.AT_FDCWD, n.args[0], 0)
	return goOn
}

func execveat(s *Supervisor, n *notification) answer {
	s.execute(n, fdArg(n.args[0]), n.args[1], fdArg(n.args[4]))
	return goOn
}

// execute notes what credentials a program will have, if they are not those that
// it is called with: set-id bits give it others. Whether it is executed in the end
// shows at the next call of the thread (tag.go): a script, whose bits do not
// count, is not what runs then.
func (s *Supervisor) execute(n *notification, dirfd int, path uint64, flags int) {
	tid := int(n.pid)
	name, follow, ok := s.statName(n, dirfd, path, flags)
	if !ok {
		return
	}
	var st unix.Stat_t
	file := string(name[:len(name)-1])
	if unix.Fstatat(s.proc, file, &st, noFollow(follow)) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	bits := st.Mode & (unix.S_ISUID | unix.S_ISGID)
	if bits == 0 && len(s.tags.list) == 0 {
		return
	}
	r, _ := s.record(append([]byte(file), 0), follow)
	c, err := s.creds(tid)
	if err != nil {
		return
	}
	uid, gid := same, same
	if bits != 0 && s.honours(tid, file) {
		if bits&unix.S_ISUID != 0 {
			uid = r.UID
		}
		if bits&unix.S_ISGID != 0 && st.Mode&unix.S_IXGRP != 0 {
			gid = r.GID
		}
	}
	then := c.executed(uid, gid)
	if then.equal(c) || !s.listener.valid(n.id) {
		return
	}
	e := tagged{creds: c, pending: true, then: then, dev: st.Dev, ino: st.Ino}
	if err := s.setTag(tid, e); err != nil {
		s.logger.Warn("the identity of a program with set-id bits is lost", "file", file, "error", err)
	}
}

// honours tells whether set-id bits count: not on a mount without them, nor for
// a thread that gave up new privileges.
func (s *Supervisor) honours(tid int, file string) bool {
	fd, err := unix.Openat(s.proc, file, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd) //nolint:errcheck // O_PATH
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Flags&unix.ST_NOSUID != 0 {
		return false
	}
	if own, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && own == 1 {
		return true // the step did not choose it, it came with the builder
	}
	text, err := s.status(tid, "NoNewPrivs:")
	if err != nil {
		return false
	}
	none, err := strconv.Atoi(string(text))
	return err == nil && none == 0
}
