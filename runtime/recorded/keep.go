package recorded

import "golang.org/x/sys/unix"

// If overlayfs copies up a symbolic link or FIFO, the file gets another inode, and its
// record in the Table is no longer found. Therefore the supervisor copies the file up
// itself before a call that would do so. Then it writes the record for the new inode. If
// a step starts without such records, its filter does not pass on these calls.

// keep preserves the record of a file that is renamed, linked, or given another mode or
// other times. AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH are the only flags with an effect.
// If there is no path, the file is dirfd.
func (s *Supervisor) keep(n *notification, dirfd int, path uint64, flags int) answer {
	if s.table.empty() {
		return goOn
	}
	tid := int(n.pid)
	var text []byte
	if path != 0 {
		var err error
		if text, err = s.string(tid, path); err != nil || len(text) == 0 && flags&unix.AT_EMPTY_PATH == 0 {
			return goOn
		}
	}
	follow := len(text) == 0 || flags&unix.AT_SYMLINK_NOFOLLOW == 0
	r, ok := s.record(s.name(tid, dirfd, text), follow)
	if !ok {
		return goOn
	}
	var how uint64
	if !follow {
		how = unix.O_NOFOLLOW
	}
	fd, err := s.find(tid, dirfd, text, how)
	if err != nil {
		return goOn
	}
	defer unix.Close(fd) //nolint:errcheck // O_PATH
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR || !s.listener.valid(n.id) {
		return goOn
	}
	if unix.Fchownat(fd, "", 0, 0, unix.AT_EMPTY_PATH) == nil {
		if err := s.setRecord(fd, st.Mode, r); err != nil {
			return fail(err)
		}
	}
	return goOn
}

// The first path of these calls is the file. The argument before it is the directory.

func keepAt(s *Supervisor, n *notification) answer {
	return s.keep(n, fdArg(n.args[0]), n.args[1], unix.AT_SYMLINK_NOFOLLOW)
}

// keepRenamed is keepAt. If the call exchanges two files, it preserves both records.
func keepRenamed(s *Supervisor, n *notification) answer {
	if n.args[4]&unix.RENAME_EXCHANGE != 0 {
		if a := s.keep(n, fdArg(n.args[2]), n.args[3], unix.AT_SYMLINK_NOFOLLOW); !a.cont {
			return a
		}
	}
	return keepAt(s, n)
}

// keepLinked is keepAt, but it follows symbolic links if the call does.
func keepLinked(s *Supervisor, n *notification) answer {
	flags := fdArg(n.args[4]) & unix.AT_EMPTY_PATH
	if n.args[4]&unix.AT_SYMLINK_FOLLOW == 0 {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	return s.keep(n, fdArg(n.args[0]), n.args[1], flags)
}

// keepTarget is keepAt for calls that follow symbolic links. keepFlags is for calls whose
// last argument may prevent that.

func keepTarget(s *Supervisor, n *notification) answer {
	return s.keep(n, fdArg(n.args[0]), n.args[1], 0)
}

func keepFlags(s *Supervisor, n *notification) answer {
	return s.keep(n, fdArg(n.args[0]), n.args[1], fdArg(n.args[3]))
}

func keepOpen(s *Supervisor, n *notification) answer { return s.keep(n, fdArg(n.args[0]), 0, 0) }
