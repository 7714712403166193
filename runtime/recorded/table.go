package recorded

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// tableMax bounds a Table, some 100 MB: a step that makes links without end must
// not take the builder's memory.
const tableMax = 1 << 20

// errTableFull is ENOSPC to a step.
var errTableFull = fmt.Errorf("more than %d symbolic links and FIFOs with recorded owners: %w", tableMax, unix.ENOSPC)

// key identifies a file: its inode number and time of birth, which no later file
// of the same number has. A file system that knows no such times is told apart by
// its device number, and only holds for one step.
type key struct {
	ino   uint64
	sec   int64
	nsec  uint32
	major uint32
	minor uint32
}

const keyMask = unix.STATX_INO | unix.STATX_BTIME

func keyOf(st *unix.Statx_t) key {
	k := key{ino: st.Ino, sec: st.Btime.Sec, nsec: st.Btime.Nsec}
	if st.Mask&unix.STATX_BTIME == 0 {
		k.major, k.minor = st.Dev_major, st.Dev_minor
	}
	return k
}

// Table has the records of files that cannot hold one. It is safe for concurrent
// use; the zero value is empty.
type Table struct {
	index tableIndex
	mu    sync.RWMutex
	m     map[key]Record
}

func (t *Table) empty() bool { return t.index.empty() }

func (t *Table) get(k key) (Record, bool) {
	if t.empty() {
		return Record{}, false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	r, ok := t.m[k]
	return r, ok
}

// set writes r down; a plain one is forgotten.
func (t *Table) set(k key, r Record) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.plain() {
		delete(t.m, k)
	} else {
		if t.m == nil {
			t.m = map[key]Record{}
		}
		if _, ok := t.m[k]; !ok && len(t.m) >= tableMax {
			return errTableFull
		}
		t.index.add(k.ino)
		t.m[k] = r
	}
	t.index.setSize(len(t.m))
	return nil
}
