package plain

import (
	"crypto/rand"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/overlay/diff"
)

// Part replaces the non-directory name in an open directory by a copy with the same
// contents and metadata. Files created by Link share the inode of the layer, so that
// changing their owner, mode or times would change the layer. After Part the file has its
// own inode. The times of the directory do not change. owners may be nil.
func Part(owners Owners, dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: ".", Err: err}
	}
	temp := ".part-" + rand.Text()
	if err := copied(owners, dir, name, dir, temp, diff.CopyFile(dir, name, dir, temp)); err != nil {
		_ = unix.Unlinkat(dir, temp, 0)
		return err
	}
	if err := unix.Renameat(dir, temp, dir, name); err != nil {
		_ = unix.Unlinkat(dir, temp, 0)
		return &os.LinkError{Op: "rename", Old: temp, New: name, Err: err}
	}
	if err := unix.UtimesNanoAt(dir, "", []unix.Timespec{st.Atim, st.Mtim}, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
