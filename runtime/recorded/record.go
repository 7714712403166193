package recorded

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Attribute is the xattr that holds a Record. containers/storage and fuse-overlayfs use
// the same name and format.
const Attribute = "user.containers.override_stat"

// Record is the recorded owner of a file, and its type if the file stands for a device.
type Record struct {
	UID, GID uint32
	// Type is S_IFCHR or S_IFBLK for an empty file that stands for a device. It is 0 for
	// all other files.
	Type uint32
	// Rdev is the number of the device.
	Rdev uint64
}

// plain reports whether r adds nothing to the metadata of the file: the owner is root and
// the file is not a device.
func (r Record) plain() bool { return r == Record{} }

// Override changes the owner in st to that of r. If r is a device, it also changes the
// type and the number.
func (r Record) Override(st *unix.Stat_t) {
	st.Uid, st.Gid = r.UID, r.GID
	if r.Type != 0 {
		st.Mode = st.Mode&^unix.S_IFMT | r.Type
		st.Rdev = r.Rdev
	}
}

// format returns the value of Attribute for a file with this mode: uid:gid:mode:type.
// Only other programs read the mode. This package uses the mode of the file itself.
func (r Record) format(mode uint32) []byte {
	b := make([]byte, 0, 40)
	b = strconv.AppendUint(b, uint64(r.UID), 10)
	b = strconv.AppendUint(append(b, ':'), uint64(r.GID), 10)
	b = fmt.Appendf(append(b, ':'), "%04o:", mode&0o7777)
	switch {
	case r.Type == unix.S_IFCHR:
		return fmt.Appendf(b, "char-%d-%d", unix.Major(r.Rdev), unix.Minor(r.Rdev))
	case r.Type == unix.S_IFBLK:
		return fmt.Appendf(b, "block-%d-%d", unix.Major(r.Rdev), unix.Minor(r.Rdev))
	case mode&unix.S_IFMT == unix.S_IFDIR:
		return append(b, "dir"...)
	}
	return append(b, "file"...)
}

var errRecord = errors.New("attribute " + Attribute + " is damaged")

// Parse parses the value of Attribute. It ignores the mode in it. It returns an error if
// an owner or a device number is missing or is not a number.
func Parse(value []byte) (r Record, err error) {
	uid, rest, ok1 := bytes.Cut(value, []byte(":"))
	gid, rest, ok2 := bytes.Cut(rest, []byte(":"))
	_, kind, _ := bytes.Cut(rest, []byte(":"))
	u, err1 := strconv.ParseUint(string(uid), 10, 32)
	g, err2 := strconv.ParseUint(string(gid), 10, 32)
	if !ok1 || !ok2 || err1 != nil || err2 != nil {
		return Record{}, fmt.Errorf("%w: %q", errRecord, value)
	}
	r.UID, r.GID = uint32(u), uint32(g)
	var number []byte
	if after, char := bytes.CutPrefix(kind, []byte("char-")); char {
		r.Type, number = unix.S_IFCHR, after
	} else if after, block := bytes.CutPrefix(kind, []byte("block-")); block {
		r.Type, number = unix.S_IFBLK, after
	} else {
		return r, nil
	}
	major, minor, ok := bytes.Cut(number, []byte("-"))
	ma, err1 := strconv.ParseUint(string(major), 10, 32)
	mi, err2 := strconv.ParseUint(string(minor), 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return Record{}, fmt.Errorf("%w: %q", errRecord, value)
	}
	r.Rdev = unix.Mkdev(uint32(ma), uint32(mi))
	return r, nil
}
