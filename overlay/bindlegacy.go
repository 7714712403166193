package overlay

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// remountBind makes a bind mount with mount(2) and then remounts it with the restrictions
// of o. If o.Recursive is set, it also remounts each mount below. If a remount fails, it
// unmounts target.
func remountBind(source *os.File, target place, o BindOptions) (err error) {
	at := target.path
	if target.file != nil {
		at = fdPath(target.file)
	}
	flags := uintptr(unix.MS_BIND)
	if o.Recursive {
		flags |= unix.MS_REC
	}
	// Resolve the path before mounting. A file descriptor of the target still refers to
	// the directory under the new mount, so the remount needs a path.
	where, err := resolve(at)
	if err != nil {
		return err
	}
	if err := unix.Mount(fdPath(source), at, "", flags, ""); err != nil {
		return fmt.Errorf("mount(2): %w", err)
	}
	if o.attributes() == 0 {
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Unmount(where, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW))
		}
	}()
	points := []string{where}
	if o.Recursive {
		if points, err = mountsBelow(where); err != nil {
			return err
		}
	}
	for _, p := range points {
		if err := o.remount(p); err != nil {
			return err
		}
	}
	return nil
}

func resolve(path string) (string, error) {
	if strings.HasPrefix(path, procFD) {
		return os.Readlink(path)
	}
	return filepath.EvalSymlinks(path)
}

// remount adds the restrictions of o to those of the mount at path. It keeps the existing
// ones because the kernel refuses to remove them in a user namespace.
func (o BindOptions) remount(path string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", path, err)
	}
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT)
	for _, f := range []struct {
		on       bool
		has, add uintptr
	}{
		{o.ReadOnly, unix.ST_RDONLY, unix.MS_RDONLY},
		{o.NoSuid, unix.ST_NOSUID, unix.MS_NOSUID},
		{o.NoDev, unix.ST_NODEV, unix.MS_NODEV},
		{o.NoExec, unix.ST_NOEXEC, unix.MS_NOEXEC},
		{false, unix.ST_NOATIME, unix.MS_NOATIME},
		{false, unix.ST_NODIRATIME, unix.MS_NODIRATIME},
		{false, unix.ST_RELATIME, unix.MS_RELATIME},
	} {
		if f.on || uintptr(st.Flags)&f.has != 0 {
			flags |= f.add
		}
	}
	if err := unix.Mount("", path, "", flags, ""); err != nil {
		return fmt.Errorf("remount %s: %w", path, err)
	}
	return nil
}

// mountsBelow returns the mount points at and below dir, beginning with dir.
func mountsBelow(dir string) (points []string, err error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return parseMountsBelow(f, dir)
}

// parseMountsBelow reads a mountinfo file. Its fifth field is the mount point
// (proc_pid_mountinfo(5)).
func parseMountsBelow(r io.Reader, dir string) ([]string, error) {
	points := []string{dir}
	seen := map[string]bool{dir: true}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // the options of an overlay can be long
	for lines.Scan() {
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 {
			return nil, fmt.Errorf("mountinfo: malformed line %q", lines.Text())
		}
		point := unescapeOctal(fields[4])
		if strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") && !seen[point] {
			seen[point] = true
			points = append(points, point)
		}
	}
	return points, lines.Err()
}

// unescapeOctal decodes the \ooo sequences by which the kernel writes space, tab, newline
// and backslash.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
