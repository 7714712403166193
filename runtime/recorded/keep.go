package recorded

import "golang.org/x/sys/unix"

// A link or FIFO of a layer below becomes another file when overlayfs copies it up:
// it is known by its inode then no more. So what would have it copied up is
// preceded by doing so, after which it is written down anew.

// keep carries on the record of what is about to be renamed, linked to or given
// other times.
func (s *Supervisor) keep(n *notification, dirfd int, path uint64) answer {
	if s.table.empty() {
		return goOn
	}
	tid := int(n.pid)
	text, err := s.string(tid, path)
	if err != nil || len(text) == 0 {
		return goOn
	}
	name := s.name(tid, dirfd, text)
	r, ok := s.record(name, false)
	if !ok {
		return goOn
	}
	fd, err := s.find(tid, dirfd, text, unix.O_NOFOLLOW)
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

func keepAt(s *Supervisor, n *notification) answer { return s.keep(n, fdArg(n.args[0]), n.args[1]) }
