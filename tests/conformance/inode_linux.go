package conformance

import (
	"io/fs"
	"syscall"
)

// inodeOf returns the inode number of a file, by which hard links are recognized. It
// returns 0 if the number is not known.
func inodeOf(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
