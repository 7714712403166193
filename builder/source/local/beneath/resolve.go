package beneath

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks limits the symbolic links in one path. The limit of the kernel is 40. Other
// builders allow 255, and some images need more than 40.
const maxLinks = 255

// Resolve resolves name inside root. Symbolic links are followed as if root were /, and
// ".." stops at root. The result is relative and clean, and "." for root itself.
// Components that do not exist are kept unchanged, so a dangling link resolves to the
// path of its missing target. If follow is false, a symbolic link in the last component
// is not followed, unless name ends in "/" or "/.". Resolve returns an *os.PathError,
// with ELOOP if there are too many links.
func Resolve(root int, name string, follow bool) (string, error) {
	r := resolver{root: root}
	r.push(name)
	// "dir/link/" and "dir/link/." refer to the target of the link.
	if strings.HasSuffix(name, "/") || strings.HasSuffix(name, "/.") {
		follow = true
	}
	for len(r.rest) > 0 {
		if err := r.step(follow); err != nil {
			return "", &os.PathError{Op: "lstat", Path: name, Err: err}
		}
	}
	if len(r.real) == 0 {
		return ".", nil
	}
	return strings.Join(r.real, "/"), nil
}

// resolver holds the resolved components and the remaining ones.
type resolver struct {
	root    int
	real    []string
	rest    []string
	missing int // number of trailing components of real that do not exist
	links   int
}

// push adds the components of p before the remaining ones.
func (r *resolver) push(p string) {
	var parts []string
	for c := range strings.SplitSeq(p, "/") {
		if c != "" && c != "." {
			parts = append(parts, c)
		}
	}
	r.rest = append(parts, r.rest...)
}

func (r *resolver) step(follow bool) error {
	c := r.rest[0]
	r.rest = r.rest[1:]
	if c == ".." {
		r.up()
		return nil
	}
	if r.missing > 0 {
		r.real = append(r.real, c)
		r.missing++
		return nil
	}
	target, kind, err := r.look(path.Join(append(r.real, c)...))
	switch {
	case err != nil:
		return err
	case kind == absent:
		r.real = append(r.real, c)
		r.missing = 1
		return nil
	case kind == link && (follow || len(r.rest) > 0):
		return r.jump(target)
	}
	r.real = append(r.real, c)
	return nil
}

func (r *resolver) up() {
	if len(r.real) == 0 {
		return
	}
	r.real = r.real[:len(r.real)-1]
	if r.missing > 0 {
		r.missing--
	}
}

func (r *resolver) jump(target string) error {
	if r.links++; r.links > maxLinks {
		return unix.ELOOP
	}
	if path.IsAbs(target) {
		r.real = r.real[:0]
	}
	r.push(target)
	return nil
}

// kind is the type of a path, as far as resolving needs it.
type kind int

const (
	absent kind = iota
	link
	other
)

// look returns the type of rel and, for a symbolic link, its target.
func (r *resolver) look(rel string) (string, kind, error) {
	fd, err := Open(r.root, rel, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return "", absent, nil
	}
	if err != nil {
		return "", other, errno(err)
	}
	defer func() { _ = unix.Close(fd) }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", other, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", other, nil
	}
	target, err := ReadlinkFD(fd)
	return target, link, err
}

// ReadlinkFD returns the target of the symbolic link that fd refers to. fd must have been
// opened with O_PATH and O_NOFOLLOW.
func ReadlinkFD(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// errno removes the path from an error, because the caller adds another path.
func errno(err error) error {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return err
}
