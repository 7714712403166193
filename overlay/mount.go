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
// With Upper the stack is writable; without Upper it is read-only. Two forms that
// overlayfs does not support are bind mounts:
//
//   - Upper without any Lower shows the upper directory itself. A deleted file leaves no
//     whiteout there.
//   - A single Lower without Upper is a read-only bind mount.
type Mount struct {
	// Lower are the absolute paths of the read-only directories, topmost first.
	Lower []string
	// Upper receives the changes. Work is the work directory of overlayfs; it must be
	// empty and on the file system of Upper. With Lower, both must be set or neither.
	// Without Lower, Work is not used.
	Upper, Work string
	// Target is the absolute path of the existing directory to mount on.
	Target string
	// UserXattr stores the marks of overlayfs in user.overlay.* instead of
	// trusted.overlay.*. It is required in a user namespace. Needs Linux 5.11.
	UserXattr bool
	// Volatile turns off every sync of the upper file system, including those that
	// programs in the overlay request. If Upper must survive a crash, the caller must
	// sync it. The work directory cannot be used for a second mount. Volatile has no
	// effect without Upper. Needs Linux 5.10.
	Volatile bool
}

// Mount mounts the stack at its target. It needs CAP_SYS_ADMIN in the user namespace that
// owns the mount namespace. From Linux 6.8 the layers are added one at a time with
// fsconfig(2). On older kernels, or if a filter refuses these calls, Mount uses mount(2).
//
// It returns an error that wraps ErrInvalidMount or ErrTooManyLowers if m cannot be
// mounted by any kernel.
func (m Mount) Mount() error {
	return m.mountWith(appendLayers, optionString)
}

// strategy is one way to mount an overlay.
type strategy func(Mount) error

// mountWith tries the strategies in order. It goes on to the next one only if a strategy
// returns errNoAppend.
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
	// errNoAppend of an earlier strategy is dropped if a later one returns another
	// result.
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

// layerPaths returns all directories of the stack.
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

// selfContained are the options that keep an upper directory usable as a lower directory,
// whatever the defaults of the kernel module are. Together with userxattr the kernel
// accepts only these values.
var selfContained = [][2]string{
	{"redirect_dir", "nofollow"},
	{"metacopy", "off"},
	{"index", "off"},
}

// flags returns the mount options that have no value.
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

// bindDir makes a bind mount of the directory path at target.
func bindDir(path, target string, o BindOptions) error {
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return Bind(dir, target, o)
}

// openDir opens a directory with O_PATH.
func openDir(path string) (*os.File, error) {
	return os.OpenFile(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
