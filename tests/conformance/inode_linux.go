package conformance

import (
	"io/fs"
	"syscall"
)

// inodeOf tells hard links of one file.
func inodeOf(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Ino
	}
	return 0
}
