package local

import (
	"context"
	"crypto/sha256"

	"golang.org/x/sys/unix"
)

// Describe calls visit for every entry that an operation with this selection
// would read, with the entry's path in the tree and a digest of what Digest
// takes of it. Digest has been asked for the same selection before.
func (t *Tree) Describe(ctx context.Context, sel Selection, visit func(path string, sum []byte)) error {
	picks, err := t.Pick(ctx, sel)
	if err != nil {
		return err
	}
	// What Digest did is remembered; this fills in nothing then.
	if err := t.hashFiles(ctx, picks); err != nil {
		return err
	}
	for _, p := range picks {
		if err := describe(p, visit); err != nil {
			return err
		}
	}
	return nil
}

func describe(p *Pick, visit func(path string, sum []byte)) error {
	f := framer{h: sha256.New()}
	for _, n := range []uint64{uint64(p.st.Mode), uint64(p.st.Uid), uint64(p.st.Gid)} {
		f.number(n)
	}
	switch p.kind() {
	case unix.S_IFREG:
		s := p.sum.Load()
		f.bytes(s.content[:])
		f.bytes(s.xattrs[:])
	case unix.S_IFLNK:
		f.bytes([]byte(p.link))
	case unix.S_IFCHR, unix.S_IFBLK:
		f.number(p.st.Rdev)
	case unix.S_IFDIR:
		attrs, err := p.DirXattrs()
		if err != nil {
			return err
		}
		sum := hashXattrs(attrs)
		f.bytes(sum[:])
	}
	visit(p.Path(), f.h.Sum(nil))
	for _, c := range p.Below {
		if err := describe(c, visit); err != nil {
			return err
		}
	}
	return nil
}
