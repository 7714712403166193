package overlay

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// fsconfigLimit is the length of the longest value that fsconfig(2) accepts, without the
// terminating NUL.
const fsconfigLimit = 255

// appendLayers mounts through fsopen(2), with one "lowerdir+" parameter per lower
// directory. Only the kernel's limit on the number of layers applies. It needs Linux 6.8
// and returns errNoAppend if the kernel lacks the calls or the parameter.
//
// There is no variant for kernels with fsopen(2) but without "lowerdir+". The whole list
// would have to fit into the 255 bytes of fsconfig(2), while mount(2) accepts a page.
func appendLayers(m Mount) error {
	if err := takesLayers(); err != nil {
		return err
	}
	fs, err := openContext()
	if err != nil {
		return err
	}
	defer fs.Close()

	var layers layerFDs
	defer layers.close()
	if err := fs.configure(m, &layers); err != nil {
		return err
	}
	mnt, err := unix.Fsmount(int(fs.Fd()), unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fs.explain("fsmount", err)
	}
	defer unix.Close(mnt) //nolint:errcheck // the mount is attached or given up
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, m.Target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// refused reports whether err comes from a kernel without the system call, or from a
// seccomp filter or security module that only knows mount(2). If the refusal is
// deliberate, mount(2) is refused as well.
func refused(err error) bool {
	return errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
}

// takesLayers returns errNoAppend if the kernel does not accept lower directories one at
// a time. It asks the kernel once, because the kernel does not change while the process
// runs. It ignores errors that have other causes, for example EMFILE; the mount then
// returns them.
var takesLayers = sync.OnceValue(func() error {
	fs, err := openContext()
	if errors.Is(err, errNoAppend) {
		return err
	}
	if err != nil {
		return nil
	}
	defer fs.Close()
	return fs.takesLayers()
})

// unknownKey is a parameter that does not exist in any version of overlayfs.
const unknownKey = "shale-unknown"

// takesLayers tries two parameters but creates no overlay. A creation that fails would
// write a line to the kernel's log.
//
// Before Linux 6.5 overlayfs has no parser of its own for fsconfig(2). The generic
// parser, legacy_parse_param, accepts any parameter, and the mount only fails when it is
// created. From 6.5 an unknown parameter is refused at once. Up to 6.7 this includes
// "lowerdir+".
//
// A filter that refuses fsmount(2) or move_mount(2) must be found before an overlay is
// created. Afterwards mount(2) could not use the work directory any more.
func (fs fsContext) takesLayers() error {
	if _, err := unix.Fsmount(-1, 0, 0); refused(err) {
		return fmt.Errorf("%w: fsmount: %w", errNoAppend, err)
	}
	if err := unix.MoveMount(-1, "", -1, "", unix.MOVE_MOUNT_F_EMPTY_PATH); refused(err) {
		return fmt.Errorf("%w: move_mount: %w", errNoAppend, err)
	}
	if unix.FsconfigSetString(int(fs.Fd()), unknownKey, "") == nil {
		return fmt.Errorf("%w: its overlayfs collects parameters unread (before Linux 6.5)", errNoAppend)
	}
	if err := unix.FsconfigSetString(int(fs.Fd()), "lowerdir+", "/"); err != nil {
		return fmt.Errorf("%w: lowerdir+: %w (before Linux 6.8)", errNoAppend, err)
	}
	return nil
}

// fsContext is a file system that is being configured, see fsopen(2).
type fsContext struct {
	*os.File
}

// openContext opens a context to configure an overlay. It returns errNoAppend if
// fsopen(2) is refused.
func openContext() (fsContext, error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err == nil {
		return fsContext{os.NewFile(uintptr(fd), "overlay")}, nil
	}
	if refused(err) {
		return fsContext{}, fmt.Errorf("%w: fsopen: %w", errNoAppend, err)
	}
	return fsContext{}, fmt.Errorf("fsopen: %w", err)
}

func (fs fsContext) configure(m Mount, layers *layerFDs) error {
	if err := fs.set("source", "overlay"); err != nil {
		return err
	}
	for _, dir := range m.Lower {
		if err := fs.setPath("lowerdir+", dir, layers); err != nil {
			return err
		}
	}
	if m.Upper != "" {
		if err := fs.setPath("upperdir", m.Upper, layers); err != nil {
			return err
		}
		if err := fs.setPath("workdir", m.Work, layers); err != nil {
			return err
		}
	}
	for _, o := range selfContained {
		if err := fs.set(o[0], o[1]); err != nil {
			return err
		}
	}
	for _, f := range m.flags() {
		if err := unix.FsconfigSetFlag(int(fs.Fd()), f); err != nil {
			return fs.explain("set "+f, err)
		}
	}
	if err := unix.FsconfigCreate(int(fs.Fd())); err != nil {
		return fs.explain("create", err)
	}
	return nil
}

func (fs fsContext) set(key, value string) error {
	if err := unix.FsconfigSetString(int(fs.Fd()), key, value); err != nil {
		return fs.explain("set "+key+"="+value, err)
	}
	return nil
}

func (fs fsContext) setPath(key, path string, layers *layerFDs) error {
	short, err := layers.short(path, fsconfigLimit)
	if err != nil {
		return err
	}
	if err := unix.FsconfigSetString(int(fs.Fd()), key, short); err != nil {
		return fs.explain("set "+key+"="+path, err)
	}
	return nil
}

// explain adds the kernel's messages about the failure to err. They are read from the
// context itself.
func (fs fsContext) explain(what string, err error) error {
	var notes []string
	buf := make([]byte, 1024)
	for {
		n, rerr := unix.Read(int(fs.Fd()), buf)
		if rerr != nil || n <= 0 {
			break
		}
		notes = append(notes, strings.TrimSpace(string(buf[:n])))
	}
	if len(notes) == 0 {
		return fmt.Errorf("%s: %w", what, err)
	}
	return fmt.Errorf("%s: %w (%s)", what, err, strings.Join(notes, "; "))
}
