package export

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"
)

// Owners makes st, which fstatat(2) gave for name in dir, what is recorded about
// the file.
type Owners interface {
	Lookup(dir int, name string, st *unix.Stat_t) error
}

// ownerRecord is the attribute in which owners are recorded.
const ownerRecord = "user.containers.override_stat"

// withOwners shows files with their recorded owners, and devices for the files
// that stand for them.
func withOwners(fs fsutil.FS, root string, owners Owners) (fsutil.FS, error) {
	fs, err := fsutil.NewFilterFS(fs, &fsutil.FilterOpt{Map: func(p string, st *types.Stat) fsutil.MapResult {
		delete(st.Xattrs, ownerRecord)
		if err := lookup(root, p, st, owners); err != nil && !errors.Is(err, os.ErrNotExist) {
			// A damaged record: nobody's file rather than another's.
			st.Uid, st.Gid = overflowID, overflowID
		}
		return fsutil.MapResultKeep
	}})
	if err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	return fs, nil
}

// overflowID is the kernel's nobody.
const overflowID = 65534

func lookup(root, p string, to *types.Stat, owners Owners) error {
	dir, err := unix.Open(path.Join(root, path.Dir(p)), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: p, Err: err}
	}
	defer unix.Close(dir) //nolint:errcheck // O_PATH
	var st unix.Stat_t
	if err := unix.Fstatat(dir, path.Base(p), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "stat", Path: p, Err: err}
	}
	kind := st.Mode & unix.S_IFMT
	if err := owners.Lookup(dir, path.Base(p), &st); err != nil {
		return err
	}
	to.Uid, to.Gid = st.Uid, st.Gid
	if now := st.Mode & unix.S_IFMT; now != kind {
		mode := os.ModeDevice
		if now == unix.S_IFCHR {
			mode |= os.ModeCharDevice
		}
		to.Mode |= uint32(mode)
		to.Devmajor, to.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	return nil
}
