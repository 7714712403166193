package recorded

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// tableMax bounds a Table, some 100 MB: a step that makes links without end must
// not take the builder's memory.
const tableMax = 1 << 20

// besideMax is tableMax for a table that has all files.
const besideMax = 1 << 22

// errTableFull is ENOSPC to a step.
var errTableFull = fmt.Errorf("too many files with recorded owners: %w", unix.ENOSPC)

// key identifies a file: its inode number and time of birth, which no later file
// of the same number has. A file system that knows no such times is told apart by
// its device number, and only holds for one step. In a table that has all files it is
// the inode number and what the file's handle comes to, see Table.beside.
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
	// beside is set where the file system has no user attributes, and the table
	// has the records of all files. Then the time of birth does not do: a file that
	// is made, given away and removed within one tick of the clock has the number
	// and the time of the next one. A file handle has the generation of the inode
	// as well (name_to_handle_at(2)), and file systems without times of birth, such
	// as NFS 3, have handles.
	beside bool

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
		if _, ok := t.m[k]; !ok && len(t.m) >= t.most() {
			return errTableFull
		}
		t.index.add(k.ino)
		t.m[k] = r
	}
	t.index.setSize(len(t.m))
	return nil
}

func (t *Table) most() int {
	if t.beside {
		return besideMax
	}
	return tableMax
}

// key identifies name in the directory dir; "" is dir itself. Of flags
// AT_SYMLINK_NOFOLLOW counts.
func (t *Table) key(dir int, name string, flags int) (key, error) {
	var st unix.Statx_t
	if err := unix.Statx(dir, name, flags|unix.AT_EMPTY_PATH, keyMask, &st); err != nil {
		return key{}, fmt.Errorf("statx %s: %w", name, err)
	}
	if t.beside {
		h, err := handleSum(dir, name, flags)
		switch {
		case err == nil:
			return key{ino: st.Ino, sec: h}, nil
		case !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EOVERFLOW):
			return key{}, err
		}
		// In a step there are others than the store's, /proc above all.
	}
	return keyOf(&st), nil
}

// find returns the record of name in the directory dir, as key finds it.
func (t *Table) find(dir int, name string, flags int) (Record, bool, error) {
	if t.empty() {
		return Record{}, false, nil
	}
	k, err := t.key(dir, name, flags)
	if err != nil {
		return Record{}, false, err
	}
	r, ok := t.get(k)
	return r, ok, nil
}
