package recorded

import "golang.org/x/sys/unix"

// A link or FIFO of a layer below becomes another file when overlayfs copies it up:
// it is known by its inode then no more. So what would have it copied up is
// preceded by doing so, after which it is written down anew. A step that starts
// without any such file is spared this.

// keep carries on the record of what is about to be renamed, linked to or given
// another mode or other times. Of flags AT_SYMLINK_NOFOLLOW and AT_EMPTY_PATH count.
// Without a path it is what dirfd is.
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

// The first path of these calls, after its directory, is the file.

func keepAt(s *Supervisor, n *notification) answer {
	return s.keep(n, fdArg(n.args[0]), n.args[1], unix.AT_SYMLINK_NOFOLLOW)
}

// keepRenamed is keepAt, and keeps the other file, too, if the two change places.
func keepRenamed(s *Supervisor, n *notification) answer {
	if n.args[4]&unix.RENAME_EXCHANGE != 0 {
		if a := s.keep(n, fdArg(n.args[2]), n.args[3], unix.AT_SYMLINK_NOFOLLOW); !a.cont {
			return a
		}
	}
	return keepAt(s, n)
}

// keepLinked is keepAt, but for links that are to be followed.
func keepLinked(s *Supervisor, n *notification) answer {
	flags := fdArg(n.args[4]) & unix.AT_EMPTY_PATH
	if n.args[4]&unix.AT_SYMLINK_FOLLOW == 0 {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	return s.keep(n, fdArg(n.args[0]), n.args[1], flags)
}

// keepTarget is keepAt for calls that follow links, unless their last argument says
// otherwise.

func keepTarget(s *Supervisor, n *notification) answer {
	return s.keep(n, fdArg(n.args[0]), n.args[1], 0)
}

func keepFlags(s *Supervisor, n *notification) answer {
	return s.keep(n, fdArg(n.args[0]), n.args[1], fdArg(n.args[3]))
}

func keepOpen(s *Supervisor, n *notification) answer { return s.keep(n, fdArg(n.args[0]), 0, 0) }
