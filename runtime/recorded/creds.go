package recorded

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// ids are the real, effective, saved and file system ids of a thread (credentials(7)).
// There is one set for users and one for groups.
type ids struct{ r, e, s, fs uint32 }

// creds are the credentials that a thread would have if all ids were mapped.
type creds struct {
	uid, gid ids
	groups   []uint32
	// keep is PR_SET_KEEPCAPS. If it is set, a change away from root keeps capabilities.
	keep bool
	// kept is set after capabilities were kept in such a change.
	kept bool
}

// newCreds returns the credentials of a step's first process.
func newCreds(uid, gid uint32, groups []uint32) creds {
	return creds{uid: ids{uid, uid, uid, uid}, gid: ids{gid, gid, gid, gid}, groups: groups}
}

func (c creds) equal(d creds) bool {
	return c.uid == d.uid && c.gid == d.gid && c.keep == d.keep && c.kept == d.kept && slices.Equal(c.groups, d.groups)
}

func (c creds) appendKey(b []byte) []byte {
	for _, i := range []ids{c.uid, c.gid} {
		for _, id := range []uint32{i.r, i.e, i.s, i.fs} {
			b = strconv.AppendUint(append(b, ' '), uint64(id), 36)
		}
	}
	b = strconv.AppendBool(strconv.AppendBool(b, c.keep), c.kept)
	for _, g := range c.groups {
		b = strconv.AppendUint(append(b, ','), uint64(g), 36)
	}
	return b
}

// capable reports whether the thread has CAP_CHOWN, CAP_SETUID, CAP_SETGID and CAP_MKNOD.
func (c creds) capable() bool { return c.uid.e == 0 || c.kept }

func (c creds) inGroup(gid uint32) bool {
	return gid == c.gid.fs || slices.Contains(c.groups, gid)
}

// same is the id that leaves an id unchanged, for example in setresuid(2).
const same = ^uint32(0)

func pick(id, old uint32) uint32 {
	if id == same {
		return old
	}
	return id
}

func (i ids) has(id uint32) bool { return id == i.r || id == i.e || id == i.s }

// set returns the ids after setuid(2).
func (i ids) set(id uint32, capable bool) (ids, unix.Errno) {
	switch {
	case id == same:
		return i, unix.EINVAL
	case capable:
		return ids{id, id, id, id}, 0
	case id == i.r || id == i.s:
		i.e, i.fs = id, id
		return i, 0
	}
	return i, unix.EPERM
}

// setRE returns the ids after setreuid(2).
func (i ids) setRE(r, e uint32, capable bool) (ids, unix.Errno) {
	if !capable && (r != same && r != i.r && r != i.e || e != same && !i.has(e)) {
		return i, unix.EPERM
	}
	out := i
	out.r, out.e = pick(r, i.r), pick(e, i.e)
	if r != same || e != same && e != i.r {
		out.s = out.e
	}
	out.fs = out.e
	return out, 0
}

// setRES returns the ids after setresuid(2).
func (i ids) setRES(r, e, s uint32, capable bool) (ids, unix.Errno) {
	if !capable {
		for _, id := range []uint32{r, e, s} {
			if id != same && !i.has(id) {
				return i, unix.EPERM
			}
		}
	}
	out := ids{r: pick(r, i.r), e: pick(e, i.e), s: pick(s, i.s)}
	out.fs = out.e
	return out, 0
}

// withUID returns the credentials after a change of user ids. It applies the effects on
// capabilities (capabilities(7), "Effect of user ID changes").
func (c creds) withUID(to ids) creds {
	was, is := c.uid.has(0), to.has(0)
	c.uid = to
	switch {
	case is:
		c.kept = false // the effective id decides again
	case was && c.keep:
		c.kept = true
	}
	return c
}

// executed returns the credentials after the execution of a program. uid and gid are the
// ids that its set-id bits give, or same.
func (c creds) executed(uid, gid uint32) creds {
	c.uid.e, c.gid.e = pick(uid, c.uid.e), pick(gid, c.gid.e)
	c.uid.s, c.uid.fs = c.uid.e, c.uid.e
	c.gid.s, c.gid.fs = c.gid.e, c.gid.e
	c.keep, c.kept = false, false
	return c
}
