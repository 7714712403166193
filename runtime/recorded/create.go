package recorded

import (
	"bytes"
	"cmp"
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// A new file belongs to the thread that creates it. In a set-gid directory it has the
// group of the directory. The kernel makes root the owner. If that is wrong, the
// supervisor creates the file, records the owner and passes the file descriptor to the
// caller. It never opens an existing file, but leaves that to the kernel. If the path is
// a symbolic link without target, the target is created.

// place is the path at which a file is created.
type place struct {
	dir  []byte // path of the directory; "" means dirfd
	base string
}

// split divides a path into directory and name. ok is false if the path cannot name a new
// file.
func split(path []byte) (p place, ok bool) {
	path = bytes.TrimRight(path, "/")
	i := bytes.LastIndexByte(path, '/')
	p = place{dir: path[:i+1], base: string(path[i+1:])}
	return p, p.base != "" && p.base != "." && p.base != ".."
}

// newOwner returns the owner of a file that a thread creates in a directory. needed is
// false if that is root, so that the kernel can carry out the call. If the directory does
// not exist, the error is ENOENT. In that case the kernel must not continue the call:
// another thread may have created the directory, and the file would be root's.
func (s *Supervisor) newOwner(tid, dirfd int, dir []byte) (r Record, needed bool, err error) {
	c, err := s.creds(tid)
	if err != nil {
		return r, false, nil //nolint:nilerr // the kernel says what is wrong
	}
	r = Record{UID: c.uid.fs, GID: c.gid.fs}
	var st unix.Stat_t
	// Another thread may create the directory between the two lookups, so retry.
	for range 3 {
		name := s.name(tid, dirfd, dir)
		if err = unix.Fstatat(s.proc, string(name[:len(name)-1]), &st, 0); err == nil {
			if st.Mode&unix.S_ISGID != 0 {
				above, _ := s.record(name, true)
				r.GID = above.GID
			}
			return r, !r.plain(), nil
		}
		if !errors.Is(err, unix.ENOENT) {
			break
		}
		if s.missing(tid, dirfd, dir) {
			return r, false, unix.ENOENT
		}
	}
	return r, false, nil
}

// missing reports whether the directory does not exist for the thread either. It finds
// the last existing directory on the path, which must not be in /proc. The next name must
// not exist in it, not even as a symbolic link.
func (s *Supervisor) missing(tid, dirfd int, dir []byte) bool {
	for {
		p, ok := split(dir)
		if !ok {
			return false
		}
		at, err := s.find(tid, dirfd, p.dir, unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) {
			dir = p.dir
			continue
		}
		if err != nil {
			return false
		}
		defer unix.Close(at) //nolint:errcheck // O_PATH
		var st unix.Stat_t
		var fs unix.Statfs_t
		err = unix.Fstatat(at, p.base, &st, unix.AT_SYMLINK_NOFOLLOW)
		return errors.Is(err, unix.ENOENT) && unix.Fstatfs(at, &fs) == nil && fs.Type != unix.PROC_SUPER_MAGIC
	}
}

// directory opens the directory in which a file is created for the caller.
func (s *Supervisor) directory(n *notification, dirfd int, dir []byte) (int, error) {
	fd, err := s.find(int(n.pid), dirfd, dir, unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	if !s.listener.valid(n.id) {
		return -1, errors.Join(unix.ESRCH, unix.Close(fd))
	}
	return fd, nil
}

// withUmask calls fn with the umask of the thread tid.
func (s *Supervisor) withUmask(tid int, fn func() error) error {
	text, err := s.status(tid, "Umask:")
	if err != nil {
		return err
	}
	mask, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil {
		return err
	}
	unix.Umask(int(mask)) // changes only this thread
	defer unix.Umask(0)
	return fn()
}

func openat(s *Supervisor, n *notification) answer {
	return s.open(n, fdArg(n.args[0]), n.args[1], n.args[2], n.args[3])
}

// openat2 returns ENOSYS if the call has resolve flags and the file needs a record,
// because only the kernel can apply the flags. Programs fall back to openat.
func openat2(s *Supervisor, n *notification) answer {
	var how unix.OpenHow
	size := min(n.args[3], uint64(len(bytesOf(&how))))
	if _, err := read(int(n.pid), n.args[2], bytesOf(&how)[:size]); err != nil {
		return goOn
	}
	if how.Flags&(unix.O_CREAT|tmpfileBit) == 0 {
		return goOn
	}
	if how.Resolve != 0 {
		if _, needed, _ := s.newOwner(int(n.pid), fdArg(n.args[0]), nil); needed {
			return fail(unix.ENOSYS)
		}
		return goOn
	}
	return s.open(n, fdArg(n.args[0]), n.args[1], how.Flags, how.Mode)
}

// open answers open calls that may create a file.
func (s *Supervisor) open(n *notification, dirfd int, path, flags, mode uint64) answer {
	if flags&unix.O_PATH != 0 {
		return goOn // O_PATH ignores O_CREAT
	}
	text, err := s.string(int(n.pid), path)
	if err != nil {
		return goOn
	}
	temporary := flags&unix.O_TMPFILE == unix.O_TMPFILE
	p, ok := split(text)
	if temporary {
		p, ok = place{dir: text, base: "."}, len(text) > 0
	}
	if !ok || text[len(text)-1] == '/' && !temporary {
		return goOn
	}
	follows := !temporary && flags&(unix.O_EXCL|unix.O_NOFOLLOW) == 0
	owner, needed, err := s.newOwner(int(n.pid), dirfd, p.dir)
	if err != nil {
		return fail(err)
	}
	if !needed && (!follows || !s.isLink(int(n.pid), dirfd, text)) {
		return goOn
	}
	dir, err := s.directory(n, dirfd, p.dir)
	if errors.Is(err, unix.ENOENT) {
		return fail(err) // the directory existed at the first lookup
	}
	if err != nil {
		return goOn // the kernel returns the error
	}
	defer func() { _ = unix.Close(dir) }() // O_PATH
	if !temporary {
		flags |= unix.O_EXCL
	}
	how := int(flags) | unix.O_CLOEXEC | unix.O_NOCTTY
	fd := -1
	for links := 0; ; links++ {
		err = s.withUmask(int(n.pid), func() (err error) {
			fd, err = unix.Openat(dir, p.base, how, uint32(mode)&0o7777)
			return err
		})
		if !errors.Is(err, unix.EEXIST) {
			break
		}
		next, base, ok := behind(dir, p.base)
		if !ok || !follows || links == maxLinks {
			if ok {
				_ = unix.Close(next) // O_PATH
			}
			return goOn
		}
		_ = unix.Close(dir) // O_PATH
		dir, p.base = next, base
		if owner, err = s.ownerIn(int(n.pid), dir); err != nil {
			return fail(err)
		}
	}
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd) //nolint:errcheck // the caller has a copy
	if err := s.recordNew(fd, owner); err != nil {
		return fail(err)
	}
	number, err := s.listener.add(n.id, fd, flags&unix.O_CLOEXEC != 0)
	if err != nil {
		return fail(err)
	}
	return value(number)
}

// maxLinks is the number of symbolic links that the kernel follows (MAXSYMLINKS).
const maxLinks = 40

// behind returns the place to which the symbolic link name leads, as an open directory
// and a name. ok is false if the target exists or if name is not a link.
func behind(dir int, name string) (next int, base string, ok bool) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, 0); !errors.Is(err, unix.ENOENT) {
		return -1, "", false
	}
	var buf [pathMax]byte
	size, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil || size == 0 || size == len(buf) || buf[size-1] == '/' {
		return -1, "", false
	}
	p, ok := split(buf[:size])
	if !ok {
		return -1, "", false
	}
	next, err = unix.Openat2(dir, cmp.Or(string(p.dir), "."), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS,
	})
	return next, p.base, err == nil
}

// isLink reports whether a path of a thread names a symbolic link.
func (s *Supervisor) isLink(tid, dirfd int, path []byte) bool {
	name := s.name(tid, dirfd, path)
	var st unix.Stat_t
	err := unix.Fstatat(s.proc, string(name[:len(name)-1]), &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// ownerIn is newOwner for an open directory.
func (s *Supervisor) ownerIn(tid, dir int) (Record, error) {
	c, err := s.creds(tid)
	if err != nil {
		return Record{}, err
	}
	r := Record{UID: c.uid.fs, GID: c.gid.fs}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return Record{}, err
	}
	if st.Mode&unix.S_ISGID != 0 {
		above, _ := s.recordOf(dir)
		r.GID = above.GID
	}
	return r, nil
}

func (s *Supervisor) recordNew(fd int, owner Record) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return s.setRecord(fd, st.Mode, owner)
}

// make answers a call that creates something other than an open file. fn creates it in an
// open directory. If special is a device, its type and number are recorded too.
func (s *Supervisor) make(n *notification, dirfd int, path uint64, special Record, fn func(dir int, name string) error) answer {
	text, err := s.string(int(n.pid), path)
	if err != nil {
		return goOn
	}
	p, ok := split(text)
	if !ok {
		return goOn
	}
	owner, needed, err := s.newOwner(int(n.pid), dirfd, p.dir)
	if err != nil {
		return fail(err)
	}
	if !needed && special.plain() {
		return goOn
	}
	owner.Type, owner.Rdev = special.Type, special.Rdev
	dir, err := s.directory(n, dirfd, p.dir)
	if err != nil {
		if special.plain() && !errors.Is(err, unix.ENOENT) {
			return goOn // the kernel returns the error
		}
		return fail(err) // the directory existed at the first lookup
	}
	defer unix.Close(dir) //nolint:errcheck // O_PATH
	if err := s.withUmask(int(n.pid), func() error { return fn(dir, p.base) }); err != nil {
		return fail(err)
	}
	fd, err := unix.Openat(dir, p.base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return answer{} // another process has removed it already
	}
	defer unix.Close(fd) //nolint:errcheck // O_PATH
	return fail(s.recordNew(fd, owner))
}

func mkdirat(s *Supervisor, n *notification) answer {
	return s.mkdir(n, fdArg(n.args[0]), n.args[1], n.args[2])
}

func (s *Supervisor) mkdir(n *notification, dirfd int, path, mode uint64) answer {
	return s.make(n, dirfd, path, Record{}, func(dir int, name string) error {
		return unix.Mkdirat(dir, name, uint32(mode)&0o7777)
	})
}

func symlinkat(s *Supervisor, n *notification) answer {
	return s.symlink(n, n.args[0], fdArg(n.args[1]), n.args[2])
}

func (s *Supervisor) symlink(n *notification, target uint64, dirfd int, path uint64) answer {
	text, err := s.string(int(n.pid), target)
	if err != nil {
		return goOn
	}
	to := string(text)
	return s.make(n, dirfd, path, Record{}, func(dir int, name string) error {
		return unix.Symlinkat(to, dir, name)
	})
}

func mknodat(s *Supervisor, n *notification) answer {
	return s.mknod(n, fdArg(n.args[0]), n.args[1], n.args[2], n.args[3])
}

// mknod creates an empty file with a record if the call asks for a device.
func (s *Supervisor) mknod(n *notification, dirfd int, path, modeArg, dev uint64) answer {
	mode := uint32(modeArg)
	var special Record
	if kind := mode & unix.S_IFMT; kind == unix.S_IFCHR || kind == unix.S_IFBLK {
		if dev == 0 && kind == unix.S_IFCHR {
			return goOn // a whiteout of overlayfs
		}
		c, err := s.creds(int(n.pid))
		if err != nil {
			return fail(err)
		}
		if !c.capable() || s.tier == TierSquash {
			return fail(unix.EPERM)
		}
		special = Record{Type: kind, Rdev: dev & 0xffffffff}
		mode = mode&^unix.S_IFMT | unix.S_IFREG
	} else if s.tier == TierSquash {
		return goOn
	}
	return s.make(n, dirfd, path, special, func(dir int, name string) error {
		return unix.Mknodat(dir, name, mode, 0)
	})
}
