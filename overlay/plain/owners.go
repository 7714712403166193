package plain

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Owners knows the owners of files where the user namespace has one id, and all
// files really are root's. Names are not followed; "." is the directory itself. It
// may be called concurrently.
type Owners interface {
	// Lookup changes st, which fstatat(2) gave for name in the open directory
	// dir, to what is recorded about the file.
	Lookup(dir int, name string, st *unix.Stat_t) error
	// Copied says that newName in the open directory to is a copy, extended
	// attributes included, of name in the open directory from.
	Copied(from int, name string, to int, newName string) error
}

// EmptyOf is Empty for layers whose owners are recorded; nil where each file has
// its owner.
func EmptyOf(owners Owners) *Listing {
	l := Empty()
	l.owners = owners
	return l
}

// sameOwner reports whether the same is recorded about two files.
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

// copied is Owners.Copied for what may be nil; err is the copying's.
func copied(o Owners, from int, name string, to int, newName string, err error) error {
	if err != nil || o == nil {
		return err
	}
	if err := o.Copied(from, name, to, newName); err != nil {
		return fmt.Errorf("copy the owner of %s: %w", name, err)
	}
	return nil
}
