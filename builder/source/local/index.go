package local

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/filelock"
)

// settle is the minimum age of a file's last change for its hash to be stored. Within one
// tick of a coarse clock, a second change does not change the times. So a younger file
// may differ from the hashed content although its metadata is the same.
const settle = 2 * time.Second

const (
	// maxRecords limits the index to 166 MB. The records that were not used for the
	// longest time are removed.
	maxRecords = 1 << 21
	// maxFresh is the number of new records in memory after which they are merged into
	// the file.
	maxFresh = 1 << 16
)

// Index caches the hashes of file contents in one file. The key is device, inode, size
// and the times mtime and ctime. Processes may share the file. It is always replaced as a
// whole, and new records are merged with the records of other processes. Damaged records
// are ignored. Index is safe for concurrent use.
type Index struct {
	path     string
	max      int
	maxFresh int

	mu     sync.Mutex
	opened bool
	saved  *indexFile
	fresh  map[inode]record
	today  uint32
	err    error // of earlier writes, returned by Close
}

// OpenIndex returns the index at path, which need not exist. The file is opened for the
// first lookup. The caller must close the index.
func OpenIndex(path string) *Index {
	return &Index{
		path: path, max: maxRecords, maxFresh: maxFresh,
		fresh: map[inode]record{}, today: day(time.Now()),
	}
}

// record is the index entry of one inode. Times are in nanoseconds since the epoch.
type record struct {
	id           inode
	ctime, mtime int64
	size         int64
	used         uint32 // day of the last use
	content      [sha256.Size]byte
}

func day(t time.Time) uint32 { return uint32(t.Unix() / (24 * 60 * 60)) } // #nosec G115 -- good for millennia

// lookup returns the content hash of a file with the metadata st.
func (x *Index) lookup(st *unix.Stat_t) (content [sha256.Size]byte, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.opened {
		x.saved, x.opened = openIndexFile(x.path), true
	}
	id := inode{st.Dev, st.Ino}
	r, ok := x.fresh[id]
	if !ok {
		r, ok = x.saved.find(id)
	}
	if !ok || r.ctime != st.Ctim.Nano() || r.mtime != st.Mtim.Nano() || r.size != st.Size {
		return content, false
	}
	if r.used != x.today {
		r.used = x.today
		x.add(r)
	}
	return r.content, true
}

// store records the content hash of a file with the metadata st, which was hashed at the
// time now. It does nothing if a later change of the file might not change its times.
func (x *Index) store(st *unix.Stat_t, content [sha256.Size]byte, now time.Time) {
	border := now.Add(-settle)
	if !time.Unix(st.Ctim.Unix()).Before(border) || !time.Unix(st.Mtim.Unix()).Before(border) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.add(record{
		id: inode{st.Dev, st.Ino}, ctime: st.Ctim.Nano(), mtime: st.Mtim.Nano(), size: st.Size,
		used: x.today, content: content,
	})
}

func (x *Index) add(r record) {
	x.fresh[r.id] = r
	if len(x.fresh) >= x.maxFresh {
		x.err = errors.Join(x.err, x.flush())
		clear(x.fresh)
	}
}

// Close writes the new records. An error means that later builds are slower, but their
// results are correct.
func (x *Index) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	err := errors.Join(x.err, x.flush())
	x.saved.close()
	x.saved, x.opened, x.err = nil, false, nil
	return err
}

func (x *Index) flush() error {
	if len(x.fresh) == 0 {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(x.path), 0o700); err != nil {
		return fmt.Errorf("make directory of file index: %w", err)
	}
	lock, err := filelock.TryOpen(filelock.Host{}, x.path+".lock", filelock.Exclusive)
	// Other processes hold the lock for some milliseconds. After one second, flush
	// returns an error instead of waiting longer.
	for tries := 0; lock == nil && err == nil && tries < 50; tries++ {
		time.Sleep(20 * time.Millisecond)
		lock, err = filelock.TryOpen(filelock.Host{}, x.path+".lock", filelock.Exclusive)
	}
	if lock == nil {
		return errors.Join(errors.New("lock file index"), err)
	}
	defer lock.Close()
	x.saved.close()
	x.saved = openIndexFile(x.path) // with the records that other processes added
	if err := writeIndex(x.path, merge(x.saved, x.fresh, x.max)); err != nil {
		return fmt.Errorf("write file index: %w", err)
	}
	x.saved.close()
	x.saved, x.opened = openIndexFile(x.path), true
	clear(x.fresh)
	return nil
}
