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

// settle is how old a file's last change must be for its hash to be
// remembered. A change within the same tick of a coarse clock leaves all times
// as they are, so a younger file may differ from what was hashed and look the
// same.
const settle = 2 * time.Second

const (
	// maxRecords bounds the index to 166 MB; what was not used for longest is
	// dropped.
	maxRecords = 1 << 21
	// maxFresh is how many new records are held in memory before they are
	// merged into the file.
	maxFresh = 1 << 16
)

// Index remembers the hashes of files' contents by device, inode, size and times
// of change, in one file. Processes may share the file: it is replaced as a whole
// and additions are merged into what others wrote. What is damaged is not there.
// It is safe for concurrent use.
type Index struct {
	path     string
	max      int
	maxFresh int

	mu     sync.Mutex
	opened bool
	saved  *indexFile
	fresh  map[inode]record
	today  uint32
	err    error // of writing in between, told by Close
}

// OpenIndex returns the index kept at path, which need not exist. The file is
// looked at when the first hash is asked for. The caller closes the index.
func OpenIndex(path string) *Index {
	return &Index{
		path: path, max: maxRecords, maxFresh: maxFresh,
		fresh: map[inode]record{}, today: day(time.Now()),
	}
}

// record is what the index knows of one inode. Times are in nanoseconds since
// the epoch.
type record struct {
	id           inode
	ctime, mtime int64
	size         int64
	used         uint32 // day of the last use
	content      [sha256.Size]byte
}

func day(t time.Time) uint32 { return uint32(t.Unix() / (24 * 60 * 60)) } // #nosec G115 -- good for millennia

// lookup returns the hash of the content of a file that looks like st.
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

// store remembers content for a file that looked like st, hashed at now, unless
// the file is too young to be told from a changed one.
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

// Close writes what was added. Losing it costs time, never correctness.
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
	// Others write it within milliseconds. One that does not is not waited for.
	for tries := 0; lock == nil && err == nil && tries < 50; tries++ {
		time.Sleep(20 * time.Millisecond)
		lock, err = filelock.TryOpen(filelock.Host{}, x.path+".lock", filelock.Exclusive)
	}
	if lock == nil {
		return errors.Join(errors.New("lock file index"), err)
	}
	defer lock.Close()
	x.saved.close()
	x.saved = openIndexFile(x.path) // others may have added to it
	if err := writeIndex(x.path, merge(x.saved, x.fresh, x.max)); err != nil {
		return fmt.Errorf("write file index: %w", err)
	}
	x.saved.close()
	x.saved, x.opened = openIndexFile(x.path), true
	clear(x.fresh)
	return nil
}
