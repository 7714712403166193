package recorded

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// tableMax limits the number of records in a Table, about 100 MB. A step that creates
// links without end must not fill the builder's memory.
const tableMax = 1 << 20

// besideMax is tableMax for a Table that holds the records of all files.
const besideMax = 1 << 22

// errTableFull is reported to a step as ENOSPC.
var errTableFull = fmt.Errorf("too many files with recorded owners: %w", unix.ENOSPC)

// key identifies a file by inode number and time of birth. No later file with the same
// inode number has the same time. If the file system does not record times of birth, the
// key has the device number instead. Such a key is valid during one step only. In a Table
// for all files the key has the inode number and a hash of the file handle, see
// Table.beside.
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

// Table holds the records of files that cannot have one in an xattr. The zero value is an
// empty Table. A Table is safe for concurrent use.
type Table struct {
	// beside is set if the file system does not support user xattrs. Then the Table holds
	// the records of all files. For these files the time of birth is not precise enough.
	// If a file is created, gets an owner and is removed within one tick of the clock,
	// the next file can have the same inode number and time. A file handle also has the
	// generation of the inode (name_to_handle_at(2)). File systems without times of
	// birth, for example NFS 3, have handles too.
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

// set stores r for the file k. If r is plain, it removes the record.
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

// key returns the key of name in the directory dir. If name is "", the file is dir
// itself. AT_SYMLINK_NOFOLLOW is the only flag with an effect.
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
		// In a step there are file systems without handles, for example /proc.
	}
	return keyOf(&st), nil
}

// find returns the record of name in the directory dir. The arguments are those of key.
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
