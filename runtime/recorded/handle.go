package recorded

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxHandle is the size of the largest file handle (MAX_HANDLE_SZ).
const maxHandle = 128

// fileHandle is struct file_handle with space for the handle.
type fileHandle struct {
	size uint32
	kind int32
	data [maxHandle]byte
}

// handleSum returns a hash of the file handle of name in the directory dir, or of dir if
// name is "". The handle stays the same after a rename and a reboot. No file that is
// created later has the same handle. AT_SYMLINK_NOFOLLOW is the only flag with an effect.
// The error is EOPNOTSUPP if the file system has no handles.
func handleSum(dir int, name string, flags int) (int64, error) {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	how := unix.AT_EMPTY_PATH
	if flags&unix.AT_SYMLINK_NOFOLLOW == 0 && name != "" {
		how |= unix.AT_SYMLINK_FOLLOW
	}
	h := fileHandle{size: maxHandle}
	var mount int32
	for {
		_, _, errno := unix.Syscall6(unix.SYS_NAME_TO_HANDLE_AT, uintptr(dir), uintptr(unsafe.Pointer(path)), //nolint:gosec // the call reads it
			uintptr(unsafe.Pointer(&h)), uintptr(unsafe.Pointer(&mount)), uintptr(how), 0) //nolint:gosec // the call writes them
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, fmt.Errorf("name_to_handle_at %s: %w", name, errno)
		}
		break
	}
	sum := fnv.New64a()
	var kind [4]byte
	binary.LittleEndian.PutUint32(kind[:], uint32(h.kind))
	_, _ = sum.Write(kind[:])                              // never fails
	_, _ = sum.Write(h.data[:min(int(h.size), maxHandle)]) // never fails
	return int64(sum.Sum64()), nil
}
