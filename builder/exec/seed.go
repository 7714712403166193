package exec

import (
	"context"
	"fmt"
	"os"
	"strconv"

	fscopy "github.com/tonistiigi/fsutil/copy"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/source/local"
	"github.com/shale-build/shale/runtime/recorded"
)

// treeSelection selects all files below path. It follows symbolic links in path.
func treeSelection(path string) local.Selection {
	return local.Selection{Path: path, FollowLinks: true}
}

// copySeed copies the content of the directory selector inside root to dir. It also
// copies the mode and the owner of the directory itself. The options uid=, gid= and mode=
// of a cache mount are passed as a seed directory with that owner and mode.
func copySeed(ctx context.Context, root, selector, dir string, owners *recorded.Owners) error {
	err := fscopy.Copy(ctx, root, "/"+selector, dir, "/", func(ci *fscopy.CopyInfo) {
		ci.CopyDirContents = true
		ci.FollowLinks = true
	})
	if err != nil {
		return fmt.Errorf("copy its first content: %w", err)
	}
	source, err := openInRoot(root, selector)
	if err != nil {
		return err
	}
	defer source.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return fmt.Errorf("look at its first content: %w", err)
	}
	give := func() error { return unix.Chown(dir, int(st.Uid), int(st.Gid)) }
	if owners != nil {
		// The owners of the files and directories in dir were copied as xattrs.
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			if err := copyLinks(source, dir, owners); err != nil {
				return err
			}
		}
		if err := owners.Lookup(int(source.Fd()), ".", &st); err != nil {
			return err
		}
		give = func() error { return owners.Chown(unix.AT_FDCWD, dir, st.Uid, st.Gid) }
	}
	if err := give(); err != nil {
		return fmt.Errorf("give it its owner: %w", err)
	}
	if err := unix.Chmod(dir, st.Mode&0o7777); err != nil {
		return fmt.Errorf("give it its mode: %w", err)
	}
	return nil
}

// copyLinks copies the recorded owners that are not in xattrs from source to dir, which
// must be a copy of source. These are the owners of symbolic links, FIFOs and sockets.
// They are also saved for later builds.
func copyLinks(source *os.File, dir string, owners *recorded.Owners) error {
	if err := owners.CopyLinks("/proc/self/fd/"+strconv.Itoa(int(source.Fd())), dir); err != nil {
		return err
	}
	return owners.SaveLinks(dir, cachemount.Links(dir))
}
