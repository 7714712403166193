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

// treeSelection is everything below path, whose links are followed.
func treeSelection(path string) local.Selection {
	return local.Selection{Path: path, FollowLinks: true}
}

// copySeed copies the content of the directory that selector names inside root
// to dir, and the directory's own mode and owner with it: uid=, gid= and mode=
// of a cache mount come as a seed that has them.
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
		// Below, the records of files and directories came along as attributes.
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

// copyLinks gives the links in dir, which are copies of those in source, the same
// owners, for this build and for those after it.
func copyLinks(source *os.File, dir string, owners *recorded.Owners) error {
	if err := owners.CopyLinks("/proc/self/fd/"+strconv.Itoa(int(source.Fd())), dir); err != nil {
		return err
	}
	return owners.SaveLinks(dir, cachemount.Links(dir))
}
