package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math"
	"path"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// digestVersion is part of every digest. It must be changed if other data is hashed.
const digestVersion = "shale tree digest 2"

// sums are the hashes of a regular file: of its content and of its xattrs. The second
// hash is zero if the file has no xattrs.
type sums struct{ content, xattrs [sha256.Size]byte }

// Digest returns a digest of all data that an operation with the selection sel reads. For
// every picked entry this is its name, type, mode, owner, link target, device number,
// xattrs and content, and which entries are hard links of each other. Times are not
// included. Fields of variable length are preceded by their lengths.
func (t *Tree) Digest(ctx context.Context, sel Selection) (digest.Digest, error) {
	picks, err := t.Pick(ctx, sel)
	if err != nil {
		return "", err
	}
	f := framer{h: sha256.New()}
	f.bytes([]byte(digestVersion))
	f.number(uint64(len(picks)))
	d := treeDigest{framer: &f}
	if err := t.scan(ctx, picks, d.add); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, f.h), nil
}

// inode identifies a file with several names.
type inode struct{ dev, ino uint64 }

// treeDigest hashes picks, each with all entries below it.
type treeDigest struct {
	*framer
	links map[inode]string // of the current pick
}

func (d *treeDigest) add(s scanned) error {
	st, name := &s.st, s.Source
	if s.up == nil {
		d.links, name = nil, path.Base(s.Source)
	}
	d.bytes([]byte(name))
	d.number(uint64(st.Mode))
	d.number(uint64(st.Uid))
	d.number(uint64(st.Gid))
	switch s.kind() {
	case unix.S_IFREG:
		d.file(s.Pick)
	case unix.S_IFLNK:
		d.bytes([]byte(s.link))
	case unix.S_IFCHR, unix.S_IFBLK:
		d.number(st.Rdev)
	case unix.S_IFDIR:
		attrs, err := s.DirXattrs()
		if err != nil {
			return err
		}
		sum := hashXattrs(attrs)
		d.bytes(sum[:])
		d.number(uint64(s.children))
	}
	return nil
}

func (d *treeDigest) file(p *Pick) {
	if p.st.Nlink > 1 {
		id := inode{p.st.Dev, p.st.Ino}
		if first, ok := d.links[id]; ok {
			d.bytes([]byte("link"))
			d.bytes([]byte(first))
			return
		}
		if d.links == nil {
			d.links = map[inode]string{}
		}
		d.links[id] = p.rel()
	}
	s := p.sum.Load()
	d.bytes([]byte("file"))
	d.bytes(s.content[:])
	d.bytes(s.xattrs[:])
}

// remembered looks for the entry in the index. If KeepOwners is set, the index is not
// used, because it contains no xattrs.
func (t *Tree) remembered(e *Entry) bool {
	if t.opts.Index == nil || t.opts.KeepOwners {
		return false
	}
	content, ok := t.opts.Index.lookup(&e.st)
	if ok {
		e.sum.Store(&sums{content: content})
	}
	return ok
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// hash reads and hashes the file. If the file changes meanwhile, the tree is marked as
// changed and the hash is not stored in the index.
func (e *Entry) hash(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	fd, err := e.OpenFD()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	h := sha256.New()
	if err := hashContent(ctx, h, fd, e.st.Size); err != nil {
		return fmt.Errorf("read %s: %w", e.Path(), err)
	}
	attrs, err := e.Xattrs(fd)
	if err != nil {
		return fmt.Errorf("read %s: %w", e.Path(), err)
	}
	s := sums{xattrs: hashXattrs(attrs)}
	h.Sum(s.content[:0])
	e.sum.Store(&s)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat %s: %w", e.Path(), err)
	}
	e.compare(&st)
	if x := e.tree.opts.Index; x != nil && !e.tree.opts.KeepOwners && e.same(&st) {
		x.store(&st, s.content, now)
	}
	return nil
}

// hashContent hashes size bytes, or fewer if the file is shorter. It reads in pieces, so
// that a large file can be cancelled. It does not read to EOF, because the caller
// compares the size afterwards. But some file systems report the size 0 for files with
// generated content. In that case it reads to EOF.
func hashContent(ctx context.Context, h hash.Hash, fd int, size int64) error {
	buf, ok := buffers.Get().(*[]byte)
	if !ok {
		return errors.New("buffer pool holds something else")
	}
	defer buffers.Put(buf)
	if size == 0 {
		size = math.MaxInt64
	}
	for size > 0 {
		n, err := unix.Read(fd, (*buf)[:min(size, int64(len(*buf)))])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		_, _ = h.Write((*buf)[:n])
		size -= int64(n)
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// hashXattrs returns the hash of attrs, or zero if there are none.
func hashXattrs(attrs []Xattr) (sum [sha256.Size]byte) {
	if len(attrs) == 0 {
		return sum
	}
	f := framer{h: sha256.New()}
	for _, a := range attrs {
		f.bytes([]byte(a.Name))
		f.bytes(a.Value)
	}
	f.h.Sum(sum[:0])
	return sum
}

// framer hashes fields with their lengths, so that the borders between fields are part of
// the hash.
type framer struct{ h hash.Hash }

func (f *framer) number(n uint64) {
	var buf [binary.MaxVarintLen64]byte
	_, _ = f.h.Write(buf[:binary.PutUvarint(buf[:], n)])
}

func (f *framer) bytes(b []byte) {
	f.number(uint64(len(b)))
	_, _ = f.h.Write(b)
}
