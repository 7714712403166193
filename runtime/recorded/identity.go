package recorded

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// changeUID changes the user ids of a thread. rule returns the new ids by the rules of
// the kernel.
func (s *Supervisor) changeUID(n *notification, rule func(c creds) (ids, unix.Errno)) answer {
	c, err := s.creds(int(n.pid))
	if err != nil {
		return fail(err)
	}
	to, errno := rule(c)
	if errno != 0 {
		return fail(errno)
	}
	return fail(s.change(n, c, c.withUID(to)))
}

func (s *Supervisor) changeGID(n *notification, rule func(c creds) (ids, unix.Errno)) answer {
	c, err := s.creds(int(n.pid))
	if err != nil {
		return fail(err)
	}
	to := c
	var errno unix.Errno
	if to.gid, errno = rule(c); errno != 0 {
		return fail(errno)
	}
	return fail(s.change(n, c, to))
}

func (s *Supervisor) change(n *notification, from, to creds) error {
	if from.equal(to) {
		return nil
	}
	if !s.listener.valid(n.id) {
		return unix.ESRCH
	}
	return s.setCreds(int(n.pid), to)
}

func setuid(s *Supervisor, n *notification) answer {
	return s.changeUID(n, func(c creds) (ids, unix.Errno) { return c.uid.set(idArg(n.args[0]), c.capable()) })
}

func setgid(s *Supervisor, n *notification) answer {
	return s.changeGID(n, func(c creds) (ids, unix.Errno) { return c.gid.set(idArg(n.args[0]), c.capable()) })
}

func setreuid(s *Supervisor, n *notification) answer {
	return s.changeUID(n, func(c creds) (ids, unix.Errno) {
		return c.uid.setRE(idArg(n.args[0]), idArg(n.args[1]), c.capable())
	})
}

func setregid(s *Supervisor, n *notification) answer {
	return s.changeGID(n, func(c creds) (ids, unix.Errno) {
		return c.gid.setRE(idArg(n.args[0]), idArg(n.args[1]), c.capable())
	})
}

func setresuid(s *Supervisor, n *notification) answer {
	return s.changeUID(n, func(c creds) (ids, unix.Errno) {
		return c.uid.setRES(idArg(n.args[0]), idArg(n.args[1]), idArg(n.args[2]), c.capable())
	})
}

func setresgid(s *Supervisor, n *notification) answer {
	return s.changeGID(n, func(c creds) (ids, unix.Errno) {
		return c.gid.setRES(idArg(n.args[0]), idArg(n.args[1]), idArg(n.args[2]), c.capable())
	})
}

// setfsuid and setfsgid return the former id. As in the kernel, they never fail because
// of missing privileges.

func setfsuid(s *Supervisor, n *notification) answer {
	return s.setFS(n, func(c *creds) *ids { return &c.uid })
}

func setfsgid(s *Supervisor, n *notification) answer {
	return s.setFS(n, func(c *creds) *ids { return &c.gid })
}

func (s *Supervisor) setFS(n *notification, of func(*creds) *ids) answer {
	c, err := s.creds(int(n.pid))
	if err != nil {
		return fail(err)
	}
	i := of(&c)
	old, id := i.fs, idArg(n.args[0])
	if id != same && (c.capable() || i.has(id) || id == old) {
		from := c
		i.fs = id
		if err := s.change(n, from, c); err != nil {
			return fail(err)
		}
	}
	return value(int(old))
}

// maxGroups is the limit of the kernel (NGROUPS_MAX).
const maxGroups = 65536

func setgroups(s *Supervisor, n *notification) answer {
	c, err := s.creds(int(n.pid))
	if err != nil {
		return fail(err)
	}
	if !c.capable() {
		return fail(unix.EPERM)
	}
	count := fdArg(n.args[0])
	if count < 0 || count > maxGroups {
		return fail(unix.EINVAL)
	}
	data := make([]byte, 4*count)
	for at := 0; at < len(data); {
		got, err := read(int(n.pid), n.args[1]+uint64(at), data[at:min(len(data), at+pageSize)])
		if err != nil || got == 0 {
			return fail(unix.EFAULT)
		}
		at += got
	}
	to := c
	to.groups = make([]uint32, count)
	for i := range to.groups {
		to.groups[i] = binary.NativeEndian.Uint32(data[4*i:])
	}
	return fail(s.change(n, c, to))
}

func getID(of func(creds) uint32) func(*Supervisor, *notification) answer {
	return func(s *Supervisor, n *notification) answer {
		c, err := s.creds(int(n.pid))
		if err != nil {
			return fail(err)
		}
		return value(int(of(c)))
	}
}

func getresuid(s *Supervisor, n *notification) answer {
	return s.getRES(n, func(c creds) ids { return c.uid })
}

func getresgid(s *Supervisor, n *notification) answer {
	return s.getRES(n, func(c creds) ids { return c.gid })
}

func (s *Supervisor) getRES(n *notification, of func(creds) ids) answer {
	c, err := s.creds(int(n.pid))
	if err != nil {
		return fail(err)
	}
	i := of(c)
	for k, id := range []uint32{i.r, i.e, i.s} {
		if err := s.write(n, n.args[k], bytesOf(&id)); err != nil {
			return fail(err)
		}
	}
	return answer{}
}

// getgroups is always answered. The kernel would show the groups on the host, and none of
// them is mapped.
func getgroups(s *Supervisor, n *notification) answer {
	c, err := s.creds(int(n.pid))
	if err != nil {
		return fail(err)
	}
	room := fdArg(n.args[0])
	switch {
	case room < 0 || room > 0 && room < len(c.groups):
		return fail(unix.EINVAL)
	case room == 0 || len(c.groups) == 0:
		return value(len(c.groups))
	}
	var data []byte
	for _, g := range c.groups {
		data = binary.NativeEndian.AppendUint32(data, g)
	}
	if err := s.write(n, n.args[1], data); err != nil {
		return fail(err)
	}
	return value(len(c.groups))
}

// prctl records PR_SET_KEEPCAPS. It also hides the timer slack from programs, because the
// slack has the number of their credentials.
func prctl(s *Supervisor, n *notification) answer {
	option := uint32(n.args[0])
	switch option {
	case unix.PR_GET_TIMERSLACK:
		return value(slack)
	case unix.PR_SET_TIMERSLACK:
		return answer{}
	}
	c, err := s.creds(int(n.pid))
	if err != nil {
		return fail(err)
	}
	if option == unix.PR_GET_KEEPCAPS {
		if c.keep {
			return value(1)
		}
		return answer{}
	}
	if n.args[1] > 1 {
		return fail(unix.EINVAL)
	}
	to := c
	to.keep = n.args[1] == 1
	return fail(s.change(n, c, to))
}

// getsockopt answers SO_PEERCRED with the credentials of the process at the other end of
// a socket (unix(7)).
func getsockopt(s *Supervisor, n *notification) answer {
	if fdArg(n.args[1]) != unix.SOL_SOCKET {
		return goOn
	}
	peer, err := s.peer(n)
	if err != nil || peer.Pid == 0 {
		return goOn
	}
	c, err := s.creds(int(peer.Pid))
	if err != nil {
		return goOn // the peer has ended, and the kernel reports root
	}
	ucred := unix.Ucred{Pid: s.innerPID(int(peer.Pid)), Uid: c.uid.e, Gid: c.gid.e}
	var room [4]byte
	if got, err := read(int(n.pid), n.args[4], room[:]); err != nil || got < len(room) {
		return fail(unix.EFAULT)
	}
	data := bytesOf(&ucred)
	length := min(len(data), int(int32(binary.NativeEndian.Uint32(room[:]))))
	if length < 0 {
		return fail(unix.EINVAL)
	}
	if err := s.write(n, n.args[3], data[:length]); err != nil {
		return fail(err)
	}
	size := uint32(length)
	return fail(s.write(n, n.args[4], bytesOf(&size)))
}

// peer returns the kernel's answer for the other end of the caller's socket.
func (s *Supervisor) peer(n *notification) (*unix.Ucred, error) {
	text, err := s.status(int(n.pid), "Tgid:")
	if err != nil {
		return nil, err
	}
	pid, err := atoi(text)
	if err != nil {
		return nil, err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(process) //nolint:errcheck // a handle
	fd, err := unix.PidfdGetfd(process, fdArg(n.args[0]), 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // a copy
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err == nil && !s.listener.valid(n.id) {
		err = unix.ESRCH
	}
	return cred, err
}

// innerPID returns the number of a process in the pid namespace of the step.
func (s *Supervisor) innerPID(pid int) int32 {
	text, err := s.status(pid, "NSpid:")
	if err != nil {
		return 0
	}
	inner, err := atoi(lastField(text))
	if err != nil {
		return 0
	}
	return int32(inner)
}

var errNumber = errors.New("not a number")

func atoi(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, errNumber
	}
	for _, c := range b {
		if c < '0' || c > '9' || n > 1<<30 {
			return 0, errNumber
		}
		n = n*10 + int(c-'0')
	}
	return n, nil
}

func lastField(b []byte) []byte {
	return b[bytes.LastIndexAny(b, " \t")+1:]
}
