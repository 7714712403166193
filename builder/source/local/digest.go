package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// digestVersion is part of every digest; it changes with what is hashed.
const digestVersion = "shale tree digest 2"

// sums are the hashes of a regular file: of its content and of its attributes,
// the latter zero when it has none.
type sums struct{ content, xattrs [sha256.Size]byte }

// Digest hashes what an operation with this selection would read: for every
// picked entry its name, type, mode, owner, link target, device number,
// attributes and content, and which entries are links of one another; not
// times. All fields are framed by their lengths.
func (t *Tree) Digest(ctx context.Context, sel Selection) (digest.Digest, error) {
	picks, err := t.Pick(ctx, sel)
	if err != nil {
		return "", err
	}
	if err := t.hashFiles(ctx, picks); err != nil {
		return "", err
	}
	f := framer{h: sha256.New()}
	f.bytes([]byte(digestVersion))
	f.number(uint64(len(picks)))
	for _, p := range picks {
		d := treeDigest{framer: &f, links: map[inode]string{}}
		if err := d.add(p, path.Base(p.Source), ""); err != nil {
			return "", err
		}
	}
	return digest.NewDigest(digest.SHA256, f.h), nil
}

// inode identifies a file across its hard links.
type inode struct{ dev, ino uint64 }

// treeDigest hashes one pick with all below it.
type treeDigest struct {
	*framer
	links map[inode]string
}

func (d *treeDigest) add(p *Pick, name, rel string) error {
	st := &p.st
	d.bytes([]byte(name))
	d.number(uint64(st.Mode))
	d.number(uint64(st.Uid))
	d.number(uint64(st.Gid))
	switch p.kind() {
	case unix.S_IFREG:
		d.file(p, rel)
	case unix.S_IFLNK:
		d.bytes([]byte(p.link))
	case unix.S_IFCHR, unix.S_IFBLK:
		d.number(st.Rdev)
	case unix.S_IFDIR:
		return d.dir(p, rel)
	}
	return nil
}

func (d *treeDigest) file(p *Pick, rel string) {
	if p.st.Nlink > 1 {
		id := inode{p.st.Dev, p.st.Ino}
		if first, ok := d.links[id]; ok {
			d.bytes([]byte("link"))
			d.bytes([]byte(first))
			return
		}
		d.links[id] = rel
	}
	s := p.sum.Load()
	d.bytes([]byte("file"))
	d.bytes(s.content[:])
	d.bytes(s.xattrs[:])
}

func (d *treeDigest) dir(p *Pick, rel string) error {
	attrs, err := p.DirXattrs()
	if err != nil {
		return err
	}
	sum := hashXattrs(attrs)
	d.bytes(sum[:])
	d.number(uint64(len(p.Below)))
	for _, c := range p.Below {
		if err := d.add(c, c.Source, path.Join(rel, c.Source)); err != nil {
			return err
		}
	}
	return nil
}

// hashFiles fills in the sums of all picked regular files.
func (t *Tree) hashFiles(ctx context.Context, picks []*Pick) error {
	g, hashing := errgroup.WithContext(ctx)
	g.SetLimit(max(2, min(runtime.GOMAXPROCS(0), 8)))
	var visit func(p *Pick)
	visit = func(p *Pick) {
		if p.kind() == unix.S_IFREG && p.sum.Load() == nil && !t.remembered(p.Entry) {
			g.Go(func() error { return p.hash(hashing) })
		}
		for _, c := range p.Below {
			if hashing.Err() != nil {
				return
			}
			visit(c)
		}
	}
	for _, p := range picks {
		visit(p)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// remembered looks the entry up in the index.
func (t *Tree) remembered(e *Entry) bool {
	if t.opts.Index == nil {
		return false
	}
	s, ok := t.opts.Index.lookup(&e.st)
	if ok {
		e.sum.Store(&s)
	}
	return ok
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// hash reads the file. A file that changes meanwhile marks the tree as changed
// and is not remembered.
func (e *Entry) hash(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now()
	f, err := e.Open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	buf, ok := buffers.Get().(*[]byte)
	if !ok {
		return errors.New("buffer pool holds something else")
	}
	defer buffers.Put(buf)
	if err := hashContent(ctx, h, f, *buf); err != nil {
		return fmt.Errorf("read %s: %w", e.Path(), err)
	}
	attrs, err := e.Xattrs(int(f.Fd()))
	if err != nil {
		return fmt.Errorf("read %s: %w", e.Path(), err)
	}
	s := sums{xattrs: hashXattrs(attrs)}
	h.Sum(s.content[:0])
	e.sum.Store(&s)
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("stat %s: %w", e.Path(), err)
	}
	e.compare(&st)
	if x := e.tree.opts.Index; x != nil && e.same(&st) {
		x.store(&st, s, now)
	}
	return nil
}

// hashContent reads in pieces so that a large file can be cancelled.
func hashContent(ctx context.Context, h hash.Hash, r io.Reader, buf []byte) error {
	for {
		n, err := r.Read(buf)
		_, _ = h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// hashXattrs returns zero for no attributes.
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

// framer hashes fields so that their borders count.
type framer struct{ h hash.Hash }

func (f *framer) number(n uint64) {
	var buf [binary.MaxVarintLen64]byte
	_, _ = f.h.Write(buf[:binary.PutUvarint(buf[:], n)])
}

func (f *framer) bytes(b []byte) {
	f.number(uint64(len(b)))
	_, _ = f.h.Write(b)
}
