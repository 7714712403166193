package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/runtime/recorded"
)

// makeCwd creates the missing components of the working directory and gives them to the
// user of the command. Components inside a mount are left to libcontainer, which sees the
// mounted file system.
func (s *stubs) makeCwd(cwd string, uid, gid uint32, owners *recorded.Owners) error {
	w, err := newWalker(s.root, cwd, s.covered)
	if err != nil {
		return err
	}
	defer w.close()
	for {
		at, name, err := w.next()
		if err != nil {
			return fmt.Errorf("working directory: %w", err)
		}
		switch at {
		case atCovered:
			return nil
		case atEnd:
			if name != "" {
				return fmt.Errorf("working directory %s: %w", cwd, unix.ENOTDIR)
			}
			s.retain(w.path(""))
			return nil
		case atMissing:
			if err := unix.Mkdirat(w.dir(), name, 0o755); err != nil {
				return fmt.Errorf("create working directory %s: %w", w.path(name), err)
			}
			parent := w.dir()
			if err := w.push(name); err != nil {
				return err
			}
			if err := give(parent, w.dir(), name, uid, gid, owners); err != nil {
				return fmt.Errorf("change owner of working directory %s: %w", cwd, err)
			}
		}
	}
}

// give sets the owner of a directory. The directory is open as dir and has the given name
// in parent.
func give(parent, dir int, name string, uid, gid uint32, owners *recorded.Owners) error {
	if owners != nil {
		return owners.Chown(parent, name, uid, gid)
	}
	return unix.Fchown(dir, int(uid), int(gid))
}
