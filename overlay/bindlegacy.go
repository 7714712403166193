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

// remountBind binds with mount(2), then restricts the new mount, and with
// Recursive each one below it, by remounting. If restricting goes wrong the
// mount is taken away again.
func remountBind(source *os.File, target place, o BindOptions) (err error) {
	at := target.path
	if target.file != nil {
		at = fdPath(target.file)
	}
	flags := uintptr(unix.MS_BIND)
	if o.Recursive {
		flags |= unix.MS_REC
	}
	// From here on the mount has a path: target's descriptor still means the
	// directory below the new mount.
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

// remount adds the restrictions to those the mount has: inside a user
// namespace an attempt to drop one of the latter is refused.
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

// mountsBelow lists the mount points at and below dir, dir first.
func mountsBelow(dir string) (points []string, err error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return parseMountsBelow(f, dir)
}

// parseMountsBelow reads mountinfo, see proc_pid_mountinfo(5): the fifth field
// is the mount point.
func parseMountsBelow(r io.Reader, dir string) ([]string, error) {
	points := []string{dir}
	seen := map[string]bool{dir: true}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20) // an overlay's options can be long
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

// unescapeOctal undoes the kernel's mangling of space, tab, newline and
// backslash as \ooo.
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
