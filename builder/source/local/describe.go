package local

import (
	"context"
	"crypto/sha256"

	"golang.org/x/sys/unix"
)

// Describe calls visit for every entry that an operation with the selection sel reads.
// sum is a digest of the same data that Digest uses. Digest must have been called with
// the same selection before, because it computes the digests of the files.
func (t *Tree) Describe(ctx context.Context, sel Selection, visit func(path string, sum []byte)) error {
	picks, err := t.Pick(ctx, sel)
	if err != nil {
		return err
	}
	return t.scan(ctx, picks, func(s scanned) error { return describe(s.Pick, visit) })
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
	return nil
}
