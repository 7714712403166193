package overlay

import (
	"os"
	"strconv"
	"strings"
)

// procFD is where the kernel lists the descriptors of the calling process.
const procFD = "/proc/self/fd"

// special are the characters with a meaning in overlayfs's options. Kernels
// differ in how they may be escaped and in which option, so a path that holds
// one is never spelled out: its descriptor's name is given instead.
const special = `:,\`

// layerFDs holds directories open whose path cannot be handed to the kernel
// as it is.
type layerFDs struct {
	files []*os.File
}

// number opens the directory and returns its descriptor in decimal, which
// names it below procFD.
func (l *layerFDs) number(path string) (string, error) {
	f, err := openDir(path)
	if err != nil {
		return "", err
	}
	l.files = append(l.files, f)
	return strconv.FormatUint(uint64(f.Fd()), 10), nil
}

// short returns path itself, or an equivalent one below procFD if path is
// longer than limit bytes or has special characters.
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
		_ = f.Close() // O_PATH: nothing to lose
	}
}
