package overlay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Mount describes one mounted stack of directories.
//
// With Upper the stack is writable; without, it is read-only. Two shapes that
// overlayfs has no use for are served by a bind mount instead: Upper without
// any Lower (the upper directory itself is shown, so nothing deleted leaves a
// whiteout behind) and a single Lower without Upper (shown read-only).
type Mount struct {
	// Lower are the read-only directories, topmost first, absolute.
	Lower []string
	// Upper takes the changes and Work is overlayfs's scratch directory, which
	// must be empty and on the filesystem of Upper. Both or neither are set.
	Upper, Work string
	// Target is the existing directory to mount on, absolute.
	Target string
	// UserXattr keeps overlayfs's marks in user.overlay.* rather than
	// trusted.overlay.*: required inside a user namespace. Linux 5.11.
	UserXattr bool
	// Volatile leaves out every sync of the upper filesystem, also those the
	// programs above ask for; who wants the upper to survive a crash syncs it
	// himself. The work directory cannot be used for a second mount
	// afterwards. It means nothing without Upper. Linux 5.10.
	Volatile bool
}

// Mount mounts the stack at its target. It needs CAP_SYS_ADMIN in the user
// namespace that owns the mount namespace. Kernels since 6.8 get the layers
// one by one through the file system configuration calls; on older ones, and
// where a filter refuses these calls, mount(2) is used.
func (m Mount) Mount() error {
	return m.mountWith(appendLayers, optionString)
}

// strategy is one way to have the kernel make an overlay.
type strategy func(Mount) error

// mountWith tries the ways given in turn; a later one is used only when the
// kernel does not know the one before.
func (m Mount) mountWith(ways ...strategy) error {
	if err := m.validate(); err != nil {
		return err
	}
	if err := m.mountShape(ways); err != nil {
		return fmt.Errorf("mount overlay at %s: %w", m.Target, err)
	}
	return nil
}

func (m Mount) mountShape(ways []strategy) error {
	switch {
	case len(m.Lower) == 0:
		return bindDir(m.Upper, m.Target, BindOptions{})
	case len(m.Lower) == 1 && m.Upper == "":
		return bindDir(m.Lower[0], m.Target, BindOptions{ReadOnly: true})
	}
	// Of ways that the kernel does not know nothing is to be said once there was
	// another answer.
	var err error
	for _, way := range ways {
		if err = way(m); !errors.Is(err, errNoAppend) {
			break
		}
	}
	return err
}

func (m Mount) validate() error {
	if (m.Upper == "") != (m.Work == "") && len(m.Lower) > 0 {
		return fmt.Errorf("%w: upper and work directory go together", ErrInvalidMount)
	}
	if len(m.Lower) == 0 && m.Upper == "" {
		return fmt.Errorf("%w: neither a lower nor an upper directory", ErrInvalidMount)
	}
	if len(m.Lower) > MaxLowers {
		return fmt.Errorf("mount %d lower directories at %s: %w", len(m.Lower), m.Target, ErrTooManyLowers)
	}
	for _, p := range append([]string{m.Target}, m.layerPaths()...) {
		if !filepath.IsAbs(p) {
			return fmt.Errorf("%w: %q is not an absolute path", ErrInvalidMount, p)
		}
	}
	return nil
}

// layerPaths returns every directory of the stack.
func (m Mount) layerPaths() []string {
	paths := append([]string(nil), m.Lower...)
	if m.Upper != "" {
		paths = append(paths, m.Upper)
	}
	if m.Work != "" {
		paths = append(paths, m.Work)
	}
	return paths
}

// selfContained are the options that keep an upper directory usable as a
// lower one, whatever the module's defaults are. userxattr accepts these
// values and refuses all others.
var selfContained = [][2]string{
	{"redirect_dir", "nofollow"},
	{"metacopy", "off"},
	{"index", "off"},
}

// flags returns the options that have no value.
func (m Mount) flags() []string {
	var flags []string
	if m.UserXattr {
		flags = append(flags, "userxattr")
	}
	if m.Volatile && m.Upper != "" {
		flags = append(flags, "volatile")
	}
	return flags
}

// bindDir binds the directory at path on target.
func bindDir(path, target string, o BindOptions) error {
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return Bind(dir, target, o)
}

// openDir opens a directory for use as a path only.
func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
