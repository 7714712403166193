package inplace

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// mount is a line of /proc/self/mountinfo, see proc_pid_mountinfo(5).
type mount struct {
	path   string
	fstype string
	// writable is false if the mount or its file system is read-only.
	writable bool
}

func mounts() ([]mount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	defer f.Close()
	var list []mount
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		sep := -1
		for i, v := range fields {
			if i >= 6 && v == "-" {
				sep = i
				break
			}
		}
		if sep < 0 || len(fields) < sep+4 {
			continue
		}
		list = append(list, mount{
			path: unescape(fields[4]), fstype: fields[sep+1],
			writable: !hasOption(fields[5], "ro") && !hasOption(fields[sep+3], "ro"),
		})
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	return list, nil
}

func hasOption(list, option string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// unescaper replaces the octal escapes of mountinfo for blanks and backslashes.
var unescaper = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescape(s string) string { return unescaper.Replace(s) }

// Memory returns a writable directory of a file system in memory (tmpfs or ramfs). It is
// for secrets, which must not reach a disk. It prefers /dev/shm. It returns an error if
// the container has no such file system.
func Memory() (string, error) {
	list, err := mounts()
	if err != nil {
		return "", err
	}
	found := ""
	for _, m := range list {
		if m.fstype != "tmpfs" && m.fstype != "ramfs" || !m.writable {
			continue
		}
		if info, err := os.Stat(m.path); err != nil || !info.IsDir() {
			continue
		}
		if m.path == "/dev/shm" {
			return m.path, nil
		}
		if found == "" && m.path != "/proc/acpi" && !strings.HasPrefix(m.path, "/sys/") && !strings.HasPrefix(m.path, "/proc/") {
			found = m.path
		}
	}
	if found == "" {
		return "", fmt.Errorf("this container has no file system in memory, such as /dev/shm, to keep secrets in")
	}
	return found, nil
}
