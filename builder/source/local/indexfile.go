package local

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"golang.org/x/sys/unix"
)

// The index file has a header and blocks of equal size. Each block contains a checksum, a
// count and its records. All records are sorted by inode. A lookup reads and checks only
// one block and the first records of a few others. The file is not copied into memory, so
// even with a large index a small build is fast.
const (
	blockSize   = 4096
	blockHeader = 8 // checksum of the rest of the block, count
	recordSize  = 2*8 + 3*8 + 4 + sha256.Size
	perBlock    = (blockSize - blockHeader) / recordSize
)

var (
	indexMagic = []byte("shale index 3\n")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// indexFile is an index file, mapped into memory. Files are replaced and never changed,
// so the content stays the same. A nil indexFile has no records.
type indexFile struct {
	data   []byte
	blocks int
	good   []uint64 // bits of the blocks with a verified checksum
}

// openIndexFile returns nil if the file does not exist or is not an index.
func openIndexFile(path string) *indexFile {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() < 2*blockSize || info.Size()%blockSize != 0 {
		return nil
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil
	}
	x := newIndexFile(data)
	if x == nil {
		_ = unix.Munmap(data)
	}
	return x
}

func newIndexFile(data []byte) *indexFile {
	blocks := len(data)/blockSize - 1
	if blocks < 1 || len(data)%blockSize != 0 || string(data[:len(indexMagic)]) != string(indexMagic) {
		return nil
	}
	return &indexFile{data: data, blocks: blocks, good: make([]uint64, (blocks+63)/64)}
}

func (x *indexFile) close() {
	if x != nil {
		_ = unix.Munmap(x.data)
	}
}

// block returns the records of a block. It returns none if the block is damaged.
func (x *indexFile) block(i int) []byte {
	b := x.data[(i+1)*blockSize:][:blockSize]
	if x.good[i/64]>>(i%64)&1 == 0 {
		if crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b) {
			return nil
		}
		x.good[i/64] |= 1 << (i % 64)
	}
	n := min(int(binary.LittleEndian.Uint32(b[4:])), perBlock)
	return b[blockHeader:][:n*recordSize]
}

// find returns the record of id.
func (x *indexFile) find(id inode) (record, bool) {
	if x == nil {
		return record{}, false
	}
	// Find the first block that starts after the record. The block before it contains the
	// record, if any block does.
	i := sort.Search(x.blocks, func(i int) bool {
		return recordID(x.data[(i+1)*blockSize+blockHeader:]).compare(id) > 0
	})
	if i == 0 {
		return record{}, false
	}
	records := x.block(i - 1)
	i = sort.Search(len(records)/recordSize, func(i int) bool {
		return recordID(records[i*recordSize:]).compare(id) > 0
	})
	if i == 0 {
		return record{}, false
	}
	r := decode(records[(i-1)*recordSize:])
	return r, r.id == id
}

// all returns the undamaged records in order.
func (x *indexFile) all() iter.Seq[record] {
	return func(yield func(record) bool) {
		if x == nil {
			return
		}
		for i := range x.blocks {
			for records := x.block(i); len(records) > 0; records = records[recordSize:] {
				if !yield(decode(records)) {
					return
				}
			}
		}
	}
}

func (a inode) compare(b inode) int {
	return cmp.Or(cmp.Compare(a.dev, b.dev), cmp.Compare(a.ino, b.ino))
}

// merge returns the saved records and the fresh ones in order. A fresh record replaces a
// saved one. If there are more than limit records, it returns the most recently used
// ones.
func merge(saved *indexFile, fresh map[inode]record, limit int) iter.Seq[record] {
	added := make([]record, 0, len(fresh))
	for _, r := range fresh {
		added = append(added, r)
	}
	slices.SortFunc(added, func(a, b record) int { return a.id.compare(b.id) })
	return bounded(joined(saved, added), limit)
}

func joined(saved *indexFile, added []record) iter.Seq[record] {
	return func(yield func(record) bool) {
		rest := added
		last := inode{}
		for r := range saved.all() {
			for len(rest) > 0 && rest[0].id.compare(r.id) < 0 {
				if !yield(rest[0]) {
					return
				}
				rest = rest[1:]
			}
			replaced := len(rest) > 0 && rest[0].id == r.id
			if replaced || r.id.compare(last) <= 0 && last != (inode{}) {
				continue // replaced, or out of order and thus not written by shale
			}
			last = r.id
			if !yield(r) {
				return
			}
		}
		for _, r := range rest {
			if !yield(r) {
				return
			}
		}
	}
}

// bounded removes the records that were not used for the longest time.
func bounded(all iter.Seq[record], limit int) iter.Seq[record] {
	total, byDay := 0, map[uint32]int{}
	for r := range all {
		total++
		byDay[r.used]++
	}
	if total <= limit {
		return all
	}
	days := make([]uint32, 0, len(byDay))
	for d := range byDay {
		days = append(days, d)
	}
	slices.SortFunc(days, func(a, b uint32) int { return cmp.Compare(b, a) })
	left, oldest, ofOldest := limit, uint32(0), 0
	for _, d := range days {
		if oldest, ofOldest = d, min(left, byDay[d]); ofOldest < byDay[d] {
			break
		}
		left -= byDay[d]
	}
	return func(yield func(record) bool) {
		n := ofOldest
		for r := range all {
			if r.used < oldest {
				continue
			}
			if r.used == oldest {
				if n == 0 {
					continue
				}
				n--
			}
			if !yield(r) {
				return
			}
		}
	}
}

func (r *record) append(b []byte) []byte {
	le := binary.LittleEndian
	for _, n := range []uint64{r.id.dev, r.id.ino, uint64(r.ctime), uint64(r.mtime), uint64(r.size)} {
		b = le.AppendUint64(b, n)
	}
	return append(le.AppendUint32(b, r.used), r.content[:]...)
}

func recordID(b []byte) inode {
	return inode{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// decode decodes the record at the start of b. b must be long enough.
func decode(b []byte) (r record) {
	le := binary.LittleEndian
	r.id = recordID(b)
	r.ctime, r.mtime, r.size = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:])), int64(le.Uint64(b[32:]))
	r.used = le.Uint32(b[40:])
	copy(r.content[:], b[44:])
	return r
}

// writeIndex replaces the file at path. It does not call fsync, because blocks that a
// crash damages fail their checksums.
func writeIndex(path string, records iter.Seq[record]) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if rmErr := os.Remove(f.Name()); !errors.Is(rmErr, fs.ErrNotExist) {
				err = errors.Join(err, rmErr)
			}
		}
	}()
	if err := writeBlocks(f, records); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func writeBlocks(f *os.File, records iter.Seq[record]) error {
	w := bufio.NewWriterSize(f, 64<<10)
	block := make([]byte, blockSize)
	copy(block, indexMagic)
	if _, err := w.Write(block); err != nil {
		return err
	}
	n := 0
	flush := func() error {
		clear(block[blockHeader+n*recordSize:])
		binary.LittleEndian.PutUint32(block[4:], uint32(n)) // #nosec G115 -- at most perBlock
		binary.LittleEndian.PutUint32(block, crc32.Checksum(block[4:], castagnoli))
		n = 0
		_, err := w.Write(block)
		return err
	}
	for r := range records {
		r.append(block[:blockHeader+n*recordSize])
		if n++; n == perBlock {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if n > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return w.Flush()
}
