package recorded

// #include "fast.h"
import "C"

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Most calls are answered in C (fast.c). There a call costs two system calls for its
// notification, and two or three for the file that it names. In Go each wait would
// involve the scheduler as well.

// fast is the state of a supervisor that C needs. Its memory contains no pointers.
type fast struct{ c C.struct_shale_recorded }

func newFast(fd int, first creds) *fast {
	f := &fast{}
	f.c.listener = C.int32_t(fd)
	f.c.slack = slack
	if !wakesWhenDeserted() {
		f.c.wait = 1
	}
	f.know(0, first)
	return f
}

// serve answers calls in C until Go must answer one, and returns that call. It is valid
// until the next call of serve. If no process is left, serve returns nil.
func (f *fast) serve(t *Table) (*notification, error) {
	switch errno := C.shale_recorded_serve(&f.c, &t.index.c); {
	case errno < 0:
		return nil, nil //nolint:nilnil // over
	case errno > 0:
		return nil, fmt.Errorf("receive and answer system calls: %w", unix.Errno(errno))
	}
	return (*notification)(unsafe.Pointer(&f.c.call)), nil // #nosec G103 -- both are struct seccomp_notif
}

// run starts the answers for the step.
func (f *fast) run()            { f.c.running = 1 }
func (f *fast) isRunning() bool { return f.c.running != 0 }

// move notes that a process changes its root directory.
func (f *fast) move()          { f.c.moved = 1 }
func (f *fast) hasMoved() bool { return f.c.moved != 0 }

// tag passes the credentials with number n to C. Go must handle pending changes, so these
// are not passed.
func (f *fast) tag(n int, e tagged) {
	f.c.tagged = 1
	if !e.pending {
		f.know(n, e.creds)
	}
}

func (f *fast) know(n int, c creds) {
	if n >= len(f.c.creds) {
		return
	}
	to := &f.c.creds[n]
	to.uid, to.euid, to.fsuid = C.uint32_t(c.uid.r), C.uint32_t(c.uid.e), C.uint32_t(c.uid.fs)
	to.gid, to.egid, to.fsgid = C.uint32_t(c.gid.r), C.uint32_t(c.gid.e), C.uint32_t(c.gid.fs)
	if c.executed(same, same).equal(c) {
		to.stays = 1
	}
	to.known = 1
}

// counts returns the number of calls by system call.
func (f *fast) counts() Stats {
	out := Stats{}
	for n, c := range f.c.count {
		if c > 0 {
			out[n] = uint64(c)
		}
	}
	return out
}

// tableIndex is a Bloom filter, shared with C, of the inode numbers in a Table.
type tableIndex struct{ c C.struct_shale_recorded_table }

func (i *tableIndex) size() *int64 { return (*int64)(unsafe.Pointer(&i.c.size)) } // #nosec G103 -- the same type

func (i *tableIndex) empty() bool   { return atomic.LoadInt64(i.size()) == 0 }
func (i *tableIndex) setSize(n int) { atomic.StoreInt64(i.size(), int64(n)) }

// add adds an inode number. It must be called before setSize counts the file.
func (i *tableIndex) add(ino uint64) {
	bit := uint32(C.shale_recorded_bit(C.uint64_t(ino)))
	atomic.OrUint64((*uint64)(unsafe.Pointer(&i.c.bits[bit/64])), 1<<(bit%64)) // #nosec G103 -- the same type
}

// has reports whether the Table may have a file with this inode number. C does the same;
// only tests call has.
func (i *tableIndex) has(ino uint64) bool {
	bit := uint32(C.shale_recorded_bit(C.uint64_t(ino)))
	return !i.empty() && atomic.LoadUint64((*uint64)(unsafe.Pointer(&i.c.bits[bit/64])))>>(bit%64)&1 == 1 // #nosec G103 -- the same type
}

// parseOwner is Parse in C. It fails for devices. Only tests call it, because a test file
// cannot import C.
func parseOwner(value []byte) (Record, bool) {
	var uid, gid C.uint32_t
	if len(value) == 0 || C.shale_recorded_parse((*C.char)(unsafe.Pointer(&value[0])), C.long(len(value)), &uid, &gid) == 0 { // #nosec G103 -- bytes
		return Record{}, false
	}
	return Record{UID: uint32(uid), GID: uint32(gid)}, true
}
