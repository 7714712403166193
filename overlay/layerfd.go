package overlay

import (
	"os"
	"strconv"
	"strings"
)

// procFD is the directory that lists the file descriptors of the calling process.
const procFD = "/proc/self/fd"

// special holds the characters that have a meaning in the mount options of overlayfs.
// Kernels differ in how they can be escaped, and in which option. A path with such a
// character is therefore never passed to the kernel; the name of its file descriptor is
// passed instead.
const special = `:,\`

// layerFDs keeps directories open if their paths cannot be passed to the kernel.
type layerFDs struct {
	files []*os.File
}

// number opens the directory path and returns its file descriptor in decimal. That is its
// name in procFD.
func (l *layerFDs) number(path string) (string, error) {
	f, err := openDir(path)
	if err != nil {
		return "", err
	}
	l.files = append(l.files, f)
	return strconv.FormatUint(uint64(f.Fd()), 10), nil
}

// short returns path itself, or an equivalent path in procFD if path is longer than limit
// bytes or has special characters.
func (l *layerFDs) short(path string, limit int) (string, error) {
	if len(path) <= limit && !strings.ContainsAny(path, special) {
		return path, nil
	}
	n, err := l.number(path)
	if err != nil {
		return "", err
	}
	return procFD + "/" + n, nil
}

func (l *layerFDs) close() {
	for _, f := range l.files {
		_ = f.Close() // opened with O_PATH, so no error matters
	}
}
