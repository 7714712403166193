package inplace

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ChangedError is returned if a step changed the container's own files while they were
// out of place. A step runs as root of the container, so it can do that. The files may
// then contain programs or configuration of the step, so the container must not be used
// any further.
type ChangedError struct {
	// Paths lists absolute paths, at most maxChanged. Count is the number of all changed
	// paths.
	Paths []string
	Count int
}

// maxChanged limits the paths that the error message lists.
const maxChanged = 3

func (e *ChangedError) Error() string {
	text := "a step changed the container's own files: " + strings.Join(e.Paths, ", ")
	if more := e.Count - len(e.Paths); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text + ": do not use this container any further"
}

// imprint holds the fields of stat(2) that change if the content, owner, mode or xattrs
// of a file change. For a directory they also change with its entries. No process can set
// the ctime.
type imprint struct {
	mode, uid, gid uint32
	size           int64
	changed        unix.Timespec
}

// imprints maps the paths of the files below a directory to their state.
type imprints struct {
	mu    sync.Mutex
	files map[string]imprint
}

// take records the files below the open directory dir, which has the path rel. It omits a
// file if skip returns true for it.
func (i *imprints) take(m *mover, dir int, rel string, skip func(*unix.Stat_t) bool) error {
	names, err := readNames(dir)
	if err != nil {
		return fmt.Errorf("list /%s: %w", rel, err)
	}
	var dirs []string
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("look at /%s: %w", path.Join(rel, name), err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, name)
		}
		if !skip(&st) {
			i.add(path.Join(rel, name), &st)
		}
	}
	return m.each(dirs, func(name string) error {
		sub, err := openDir(dir, name)
		if err != nil {
			return fmt.Errorf("look into /%s: %w", path.Join(rel, name), err)
		}
		defer func() { _ = unix.Close(sub) }()
		return i.take(m, sub, path.Join(rel, name), skip)
	})
}

func (i *imprints) add(name string, st *unix.Stat_t) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.files[name] = imprint{mode: st.Mode, uid: st.Uid, gid: st.Gid, size: st.Size, changed: st.Ctim}
}

// witness records the files below the open directory own before steps run.
func (r *Root) witness(m *mover, own int) error {
	open := openForWriting()
	r.before, r.open = &imprints{files: map[string]imprint{}}, open
	var st unix.Stat_t
	if err := unix.Fstat(own, &st); err != nil {
		return fmt.Errorf("look at the container's own files: %w", err)
	}
	r.before.add("", &st)
	return r.before.take(m, own, "", open.has)
}

// compare sets r.changed if the files below own differ from those that witness recorded.
func (r *Root) compare(m *mover, own int) error {
	if r.before == nil {
		return nil
	}
	before := r.before
	r.before = nil
	after := &imprints{files: map[string]imprint{}}
	var st unix.Stat_t
	if err := unix.Fstat(own, &st); err != nil {
		return fmt.Errorf("look at the container's own files: %w", err)
	}
	after.add("", &st)
	if err := after.take(m, own, "", r.open.has); err != nil {
		return err
	}
	found := &ChangedError{}
	for name, is := range after.files {
		if was, ok := before.files[name]; !ok || was != is {
			found.add(name)
		}
		delete(before.files, name)
	}
	for name := range before.files {
		found.add(name)
	}
	if found.Count > 0 {
		r.changed = found
	}
	return nil
}

// add adds a changed path. The path of a file replaces that of its directory, because the
// ctime of the directory changes with it.
func (e *ChangedError) add(name string) {
	e.Count++
	p := "/" + name
	for i, q := range e.Paths {
		if strings.HasPrefix(p, strings.TrimSuffix(q, "/")+"/") {
			e.Paths[i] = p
			return
		}
	}
	if len(e.Paths) < maxChanged {
		e.Paths = append(e.Paths, p)
	}
}

// inodes is a set of files.
type inodes map[inode]bool

func (s inodes) has(st *unix.Stat_t) bool {
	return s[inode{dev: uint64(st.Dev), ino: st.Ino}] //nolint:unconvert // 32 bits on some architectures
}

// openForWriting returns the files that processes of the container have open for writing,
// for example a log file that receives the output of the build. It is called while no
// step runs, so the processes are the container's own. Processes whose file descriptors
// this process cannot read are skipped.
func openForWriting() inodes {
	found := inodes{}
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return found
	}
	for _, link := range links {
		// The link is writable if the file was opened for writing (proc_pid_fd(5)).
		info, err := os.Lstat(link)
		if err != nil || info.Mode()&0o200 == 0 {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(link, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			found[inode{dev: uint64(st.Dev), ino: st.Ino}] = true //nolint:unconvert // see has
		}
	}
	return found
}
