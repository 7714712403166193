package local

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how old a file's last change must be for its hash to be
// remembered. A change within the same tick of a coarse clock leaves all times
// as they are, so a younger file may differ from what was hashed and look the
// same.
const settle = 2 * time.Second

// maxRecords bounds the index; what was not used for longest is dropped.
const maxRecords = 1 << 18

// refresh is how stale a record's time of last use may become before it is
// written anew.
const refresh = 24 * time.Hour

// Index remembers the hashes of files by device, inode, size and times of
// change, in one file. Processes may share the file: it is replaced as a whole
// and additions are merged into what others wrote. A damaged file is an empty
// index. It is safe for concurrent use.
type Index struct {
	path string
	max  int

	load  sync.Once
	mu    sync.Mutex
	saved []byte // sorted records as they are on disk
	fresh map[inode]record
}

// OpenIndex returns the index kept at path, which need not exist. The file is
// read at the first look-up.
func OpenIndex(path string) *Index {
	return &Index{path: path, max: maxRecords, fresh: map[inode]record{}}
}

// record is what the index knows of one inode.
type record struct {
	id           inode
	ctime, mtime unix.Timespec
	size         int64
	used         int64 // seconds since the epoch
	sums         sums
}

// recordSize is the size of an encoded record.
const recordSize = 2*8 + 2*12 + 8 + 8 + 2*sha256.Size

var (
	indexMagic = []byte("shale index 2\n")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// lookup returns the sums of a file that looks like st.
func (x *Index) lookup(st *unix.Stat_t) (sums, bool) {
	x.load.Do(func() { x.saved = readIndex(x.path) })
	x.mu.Lock()
	defer x.mu.Unlock()
	id := inode{st.Dev, st.Ino}
	r, ok := x.fresh[id]
	if !ok {
		r, ok = find(x.saved, id)
	}
	if !ok || r.ctime != st.Ctim || r.mtime != st.Mtim || r.size != st.Size {
		return sums{}, false
	}
	if now := time.Now().Unix(); now-r.used > int64(refresh/time.Second) {
		r.used = now
		x.fresh[id] = r
	}
	return r.sums, true
}

// store remembers s for a file that looked like st, hashed at now, unless the
// file is too young to be told from a changed one.
func (x *Index) store(st *unix.Stat_t, s sums, now time.Time) {
	border := now.Add(-settle)
	if !time.Unix(st.Ctim.Unix()).Before(border) || !time.Unix(st.Mtim.Unix()).Before(border) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	id := inode{st.Dev, st.Ino}
	x.fresh[id] = record{id: id, ctime: st.Ctim, mtime: st.Mtim, size: st.Size, used: now.Unix(), sums: s}
}

// Flush writes what was added. Losing it costs time, never correctness.
func (x *Index) Flush() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.fresh) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(x.path), 0o700); err != nil {
		return fmt.Errorf("make directory of file index: %w", err)
	}
	unlock, err := lockFile(x.path + ".lock")
	if err != nil {
		return fmt.Errorf("lock file index: %w", err)
	}
	defer unlock()
	merged := merge(readIndex(x.path), x.fresh, x.max)
	if err := writeIndex(x.path, merged); err != nil {
		return fmt.Errorf("write file index: %w", err)
	}
	x.saved = merged
	x.fresh = map[inode]record{}
	return nil
}

func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(&os.PathError{Op: "flock", Path: path, Err: err}, f.Close())
		}
	}
}

// merge puts fresh records into the sorted saved ones and keeps the limit most
// recently used.
func merge(saved []byte, fresh map[inode]record, limit int) []byte {
	records := make([]record, 0, len(saved)/recordSize+len(fresh))
	for off := 0; off < len(saved); off += recordSize {
		if r := decode(saved[off:]); !has(fresh, r.id) {
			records = append(records, r)
		}
	}
	for _, r := range fresh {
		records = append(records, r)
	}
	if len(records) > limit {
		slices.SortFunc(records, func(a, b record) int { return int(b.used - a.used) })
		records = records[:limit]
	}
	slices.SortFunc(records, func(a, b record) int { return a.id.compare(b.id) })
	out := make([]byte, 0, len(records)*recordSize)
	for i := range records {
		out = records[i].append(out)
	}
	return out
}

func has(m map[inode]record, id inode) bool { _, ok := m[id]; return ok }

func (a inode) compare(b inode) int {
	switch {
	case a == b:
		return 0
	case a.dev < b.dev || (a.dev == b.dev && a.ino < b.ino):
		return -1
	}
	return 1
}

// find searches sorted records.
func find(saved []byte, id inode) (record, bool) {
	lo, hi := 0, len(saved)/recordSize
	for lo < hi {
		mid := (lo + hi) / 2
		r := saved[mid*recordSize:]
		at := inode{binary.LittleEndian.Uint64(r), binary.LittleEndian.Uint64(r[8:])}
		switch c := at.compare(id); {
		case c == 0:
			return decode(r), true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return record{}, false
}

func (r *record) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, r.id.dev)
	b = binary.LittleEndian.AppendUint64(b, r.id.ino)
	for _, t := range []unix.Timespec{r.ctime, r.mtime} {
		b = binary.LittleEndian.AppendUint64(b, uint64(t.Sec))
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Nsec))
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(r.size))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.used))
	b = append(b, r.sums.content[:]...)
	return append(b, r.sums.xattrs[:]...)
}

// decode reads the record at the start of b, which is long enough.
func decode(b []byte) (r record) {
	le := binary.LittleEndian
	r.id = inode{le.Uint64(b), le.Uint64(b[8:])}
	r.ctime = unix.Timespec{Sec: int64(le.Uint64(b[16:])), Nsec: int64(le.Uint32(b[24:]))}
	r.mtime = unix.Timespec{Sec: int64(le.Uint64(b[28:])), Nsec: int64(le.Uint32(b[36:]))}
	r.size = int64(le.Uint64(b[40:]))
	r.used = int64(le.Uint64(b[48:]))
	copy(r.sums.content[:], b[56:])
	copy(r.sums.xattrs[:], b[56+sha256.Size:])
	return r
}

// readIndex returns the records of the file at path, none when it is missing
// or damaged.
func readIndex(path string) []byte {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return parseIndex(data)
}

// parseIndex checks a file: magic, records sorted by inode, checksum.
func parseIndex(data []byte) []byte {
	body, ok := bytes.CutPrefix(data, indexMagic)
	if !ok || len(body) < 4 || (len(body)-4)%recordSize != 0 {
		return nil
	}
	records, sum := body[:len(body)-4], body[len(body)-4:]
	if crc32.Checksum(records, castagnoli) != binary.LittleEndian.Uint32(sum) {
		return nil
	}
	for off := recordSize; off < len(records); off += recordSize {
		if decode(records[off-recordSize:]).id.compare(decode(records[off:]).id) >= 0 {
			return nil
		}
	}
	return records
}

// writeIndex replaces the file at path. There is no fsync: a file torn by a
// crash fails its checksum and is an empty index.
func writeIndex(path string, records []byte) (err error) {
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
	sum := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(records, castagnoli))
	for _, part := range [][]byte{indexMagic, records, sum} {
		if _, err := f.Write(part); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
