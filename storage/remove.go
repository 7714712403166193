package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/rmtree"
)

// removeTree removes a directory of shale after a failure. It first detaches all mounts
// below it, because a removal must never reach files behind a mount. If a mount stays,
// the tree stays too.
func removeTree(dir string) error {
	if err := detach(dir); err != nil {
		return err
	}
	if err := rmtree.Remove(dir); err != nil {
		return fmt.Errorf("remove staging directory: %w", err)
	}
	return nil
}

// detach unmounts everything that is mounted below dir, so that no file behind a mount is
// removed with it.
func detach(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	// The latest mount must go first.
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach %s: %w", m, err)
		}
	}
	if mounts, err = mountsBelow(dir); err != nil {
		return err
	}
	if len(mounts) > 0 {
		return fmt.Errorf("remove %s: %s is still mounted", dir, strings.Join(mounts, ", "))
	}
	return nil
}

// mountsBelow returns the mount points below dir in the order of their mounts.
func mountsBelow(dir string) ([]string, error) {
	f, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer func() { _ = f.Close() }()
	var mounts []string
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if path, ok := mountPoint(line); ok && strings.HasPrefix(path, dir+"/") {
			mounts = append(mounts, path)
		}
		if errors.Is(err, io.EOF) {
			return mounts, nil
		}
		if err != nil {
			return nil, fmt.Errorf("list mounts: %w", err)
		}
	}
}

// mountPoint returns the fifth field of a line of mountinfo, see proc_pid_mountinfo(5),
// with its octal escapes replaced.
func mountPoint(line string) (string, bool) {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return "", false
	}
	return unescape(fields[4]), true
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := octal(s[i:]); ok {
			b.WriteByte(c)
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(s string) (byte, bool) {
	if len(s) < 4 || s[0] != '\\' {
		return 0, false
	}
	var n int
	for _, c := range []byte(s[1:4]) {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n<<3 | int(c-'0')
	}
	return byte(n), n < 256
}
