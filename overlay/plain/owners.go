package plain

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Owners returns recorded owners. They are used if the user namespace has only one id, so
// that root really owns all files. Symbolic links are not followed; "." is the directory
// itself. The methods must be safe for concurrent use. Package runtime/recorded
// implements them.
type Owners interface {
	// Lookup changes st, the result of fstatat(2) for name in the open directory dir, to
	// the record of the file.
	Lookup(dir int, name string, st *unix.Stat_t) error
	// Copied records that newName in the open directory to is a copy of name in the open
	// directory from. Its extended attributes are already copied.
	Copied(from int, name string, to int, newName string) error
}

// EmptyOf returns an empty listing for layers with recorded owners. owners is nil if
// files really have their owners.
func EmptyOf(owners Owners) *Listing {
	l := Empty()
	l.owners = owners
	return l
}

// sameOwner reports whether two files have the same recorded owner.
func sameOwner(o Owners, dirA int, nameA string, dirB int, nameB string) (bool, error) {
	if o == nil {
		return true, nil
	}
	var st [2]unix.Stat_t
	for i, at := range []struct {
		dir  int
		name string
	}{{dirA, nameA}, {dirB, nameB}} {
		err := unix.Fstatat(at.dir, at.name, &st[i], unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			err = o.Lookup(at.dir, at.name, &st[i])
		}
		if err != nil {
			return false, fmt.Errorf("find the owner of %s: %w", at.name, err)
		}
	}
	one, two := &st[0], &st[1]
	device := one.Mode&unix.S_IFMT == unix.S_IFCHR || one.Mode&unix.S_IFMT == unix.S_IFBLK
	return one.Uid == two.Uid && one.Gid == two.Gid && one.Mode == two.Mode && (!device || one.Rdev == two.Rdev), nil
}

// copied calls o.Copied if o is not nil. err is the error of the copy; copied returns it
// if it is not nil.
func copied(o Owners, from int, name string, to int, newName string, err error) error {
	if err != nil || o == nil {
		return err
	}
	if err := o.Copied(from, name, to, newName); err != nil {
		return fmt.Errorf("copy the owner of %s: %w", name, err)
	}
	return nil
}
