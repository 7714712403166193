package recorded

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// moved notes that a process changes its root directory. From then on, each call is
// answered with the root directory of its caller.
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

// execute notes the credentials that a thread has after an execve, if they differ from
// its present ones. This is the case for programs with set-id bits. The next call of the
// thread shows whether the execve succeeded (tag.go). For a script the executed file is
// the interpreter, so the set-id bits of the script have no effect.
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

// honours reports whether set-id bits have an effect. They have none on a mount with
// nosuid, or for a thread that has set no_new_privs.
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
		return true // the builder set no_new_privs, not the step
	}
	text, err := s.status(tid, "NoNewPrivs:")
	if err != nil {
		return false
	}
	none, err := strconv.Atoi(string(text))
	return err == nil && none == 0
}
