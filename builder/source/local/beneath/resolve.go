package beneath

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds the links followed for one path. The kernel stops at 40;
// other builders at 255, and images rely on it.
const maxLinks = 255

// Resolve returns the path below root that name means inside it: links are
// followed as if root were /, ".." stops at root. The result is relative and
// clean, "." for root itself. What does not exist is kept as it is written,
// so a dangling link resolves to the place where its target would be. With
// follow false the last component is not followed.
func Resolve(root int, name string, follow bool) (string, error) {
	r := resolver{root: root}
	r.push(name)
	// "dir/link/" and "dir/link/." mean what the link points to.
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

// resolver holds what is resolved and what is left to resolve.
type resolver struct {
	root    int
	real    []string
	rest    []string
	missing int // number of trailing components of real that do not exist
	links   int
}

// push puts the components of p before what is left.
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

// kind is what a path names, as far as resolving it cares.
type kind int

const (
	absent kind = iota
	link
	other
)

// look tells what rel is and, for a link, where it points.
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

// ReadlinkFD reads the link that fd, opened with O_PATH and O_NOFOLLOW, is.
func ReadlinkFD(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// errno takes the path out of an error that is about to get another one.
func errno(err error) error {
	if e, ok := errors.AsType[unix.Errno](err); ok {
		return e
	}
	return err
}
