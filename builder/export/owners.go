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

// Owners changes st, the result of fstatat(2) for name in dir, to the recorded values of
// the file. See recorded.Owners.
type Owners interface {
	Lookup(dir int, name string, st *unix.Stat_t) error
}

// ownerRecord is the extended attribute in which owners are recorded.
const ownerRecord = "user.containers.override_stat"

// withOwners returns fs with the recorded owners of the files. Files that stand for
// devices become devices.
func withOwners(fs fsutil.FS, root string, owners Owners) (fsutil.FS, error) {
	fs, err := fsutil.NewFilterFS(fs, &fsutil.FilterOpt{Map: func(p string, st *types.Stat) fsutil.MapResult {
		delete(st.Xattrs, ownerRecord)
		if err := lookup(root, p, st, owners); err != nil && !errors.Is(err, os.ErrNotExist) {
			// The record is damaged. Use the overflow id, so that the file does not get
			// the owner of another file.
			st.Uid, st.Gid = overflowID, overflowID
		}
		return fsutil.MapResultKeep
	}})
	if err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	return fs, nil
}

// overflowID is the kernel's overflow uid and gid (user "nobody").
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
