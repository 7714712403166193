package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/docker/go-units"
	"go.podman.io/storage/pkg/mount"
	"golang.org/x/sys/unix"
)

// A file system counts as full if less than this is free. The limits are not zero,
// because a program that met a full disk may remove part of its output before it ends.
const (
	fullBytes  = 1 << 20
	fullInodes = 8
)

// Space is the free space of a file system, see statfs(2).
type Space struct {
	// Path is the path that SpaceOf was called with, or its nearest parent that exists.
	Path string
	// Size and Free are in bytes. Free is the space that unprivileged users may take.
	Size, Free uint64
	// Inodes is 0 if the file system creates inodes as they are needed.
	Inodes, FreeInodes uint64
}

// SpaceOf returns the space of the file system that path is on or will be on.
func SpaceOf(path string) (Space, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == nil {
			break
		}
		if up := filepath.Dir(path); errors.Is(err, unix.ENOENT) && up != path {
			path = up
			continue
		}
		return Space{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	block := uint64(max(0, st.Frsize))
	if block == 0 {
		block = uint64(max(0, st.Bsize))
	}
	return Space{
		Path: path, Size: st.Blocks * block, Free: st.Bavail * block, Inodes: st.Files, FreeInodes: st.Ffree,
	}, nil
}

// Full reports whether the file system has hardly any space or inodes left.
func (sp Space) Full() bool { return sp.Free < fullBytes || sp.noInodes() }

func (sp Space) noInodes() bool { return sp.Inodes > 0 && sp.FreeInodes < fullInodes }

// String returns a description of the file system and its free space.
func (sp Space) String() string {
	where := "the file system of " + sp.Path
	if at, device := mountOf(sp.Path); at != "" {
		where = fmt.Sprintf("the file system %s (%s)", at, device)
	}
	if sp.noInodes() && sp.Free >= fullBytes {
		return fmt.Sprintf("%s has no inodes left: %d of %d are free, and %s of %s", where, sp.FreeInodes, sp.Inodes, size(sp.Free), size(sp.Size))
	}
	return fmt.Sprintf("%s is full: %s of %s are free", where, size(sp.Free), size(sp.Size))
}

func size(bytes uint64) string { return units.HumanSizeWithPrecision(float64(bytes), 3) }

// mountOf returns the mount point above path and the device that is mounted there. It
// returns the innermost mount of the same file system, except a mount that a store makes
// of its own directory. It returns "" if there is none.
func mountOf(path string) (at, device string) {
	mounts, err := mount.GetMounts()
	if err != nil {
		return "", ""
	}
	var here unix.Stat_t
	if unix.Stat(path, &here) != nil {
		return "", ""
	}
	for _, m := range mounts {
		var st unix.Stat_t
		below := m.Mountpoint == "/" || path == m.Mountpoint || strings.HasPrefix(path, m.Mountpoint+"/")
		if !below || m.Root != "/" && at != "" || len(m.Mountpoint) < len(at) {
			continue
		}
		if unix.Stat(m.Mountpoint, &st) == nil && st.Dev == here.Dev {
			at, device = m.Mountpoint, m.Source
		}
	}
	return at, device
}

// FullError is a failure for lack of space. It has its own exit status, so that a step
// that failed for this reason is not blamed for the failure.
type FullError struct {
	// Space is the free space at the time of the failure.
	Space Space
	// Quota reports that the user's quota is used up.
	Quota bool
	// Store reports that the store is on this file system.
	Store bool
	// Written is the size in bytes of the layer that was being made, 0 if there was none.
	Written int64
	// Err is the failure itself.
	Err error
}

func (e *FullError) Error() string {
	first, _, _ := strings.Cut(e.Err.Error(), "\n")
	what := e.Space.String()
	if e.Quota {
		what = "the quota of disk space, or of files, is used up on the file system of " + e.Space.Path
	}
	if e.Written > 0 && !e.Space.noInodes() {
		what += fmt.Sprintf("; the layer that was being made needs more than the %s it took", units.HumanSizeWithPrecision(float64(e.Written), 3))
	}
	if e.Store {
		what += "; shale system prune removes data that no named image needs, shale system prune --all also images that are not in use"
	}
	return first + ": " + what
}

// Unwrap returns Err, and unix.EDQUOT or unix.ENOSPC as the kind of the failure.
func (e *FullError) Unwrap() []error {
	if e.Quota {
		return []error{unix.EDQUOT, e.Err}
	}
	return []error{unix.ENOSPC, e.Err}
}

// ExitCode returns the exit status for failures that are not the fault of a step.
func (e *FullError) ExitCode() int { return 125 }

// NoSpace returns err as a FullError if its cause is lack of space, and err itself
// otherwise. It looks for the full file system at the paths that err names, then at
// graphRoot, which is that of the store, and then at dirs.
func NoSpace(err error, graphRoot string, dirs ...string) error {
	if _, ok := errors.AsType[*FullError](err); ok || err == nil {
		return err
	}
	quota := says(err, unix.EDQUOT)
	if !quota && !says(err, unix.ENOSPC) {
		return err
	}
	sp := fullest(append(append(pathsOf(err), graphRoot), dirs...), quota)
	store, storeErr := SpaceOf(graphRoot)
	return &FullError{Space: sp, Quota: quota, Store: storeErr == nil && sameDevice(store.Path, sp.Path), Err: err}
}

// sameDevice reports whether two existing paths are on the same file system.
func sameDevice(a, b string) bool {
	var sa, sb unix.Stat_t
	return unix.Stat(a, &sa) == nil && unix.Stat(b, &sb) == nil && sa.Dev == sb.Dev
}

// says reports whether err is errno or contains its text. The error of a helper process
// has only the text.
func says(err error, errno unix.Errno) bool {
	return errors.Is(err, errno) || strings.Contains(err.Error(), errno.Error())
}

// fullest returns the first file system that is full, or that of the first path if none
// is. If quota is true, no file system needs to be full, so it returns that of the first
// path.
func fullest(paths []string, quota bool) (first Space) {
	for i, path := range paths {
		sp, err := SpaceOf(path)
		if err != nil {
			continue
		}
		if sp.Full() && !quota {
			return sp
		}
		if i == 0 || first.Path == "" {
			first = sp
		}
	}
	return first
}

// pathsOf returns the absolute paths that a PathError or a LinkError in err's tree names.
func pathsOf(err error) (paths []string) {
	switch e := err.(type) { //nolint:errorlint // every node is looked at by itself
	case *fs.PathError:
		paths = []string{e.Path}
	case *os.LinkError:
		paths = []string{e.New, e.Old}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			paths = append(paths, pathsOf(inner)...)
		}
		return paths
	default:
		if inner := errors.Unwrap(err); inner != nil {
			return pathsOf(inner)
		}
		return nil
	}
	absolute := paths[:0]
	for _, p := range paths {
		if filepath.IsAbs(p) {
			absolute = append(absolute, p)
		}
	}
	return absolute
}

// noteFull notes for NoSpace whether the file system was full when err occurred. dir is
// the directory of the layer that was being made. noteFull measures its size now, because
// the directory is removed after the failure.
func (s *Store) noteFull(dir string, err error) {
	sp, spErr := SpaceOf(dir)
	if spErr != nil {
		return
	}
	quota := says(err, unix.EDQUOT)
	if !quota && !says(err, unix.ENOSPC) && !sp.Full() {
		// A failed step gives only its exit status, and statfs(2) does not report quotas.
		if quota = noQuota(dir); !quota {
			return
		}
	}
	sp.Path = s.GraphRoot()
	s.full.CompareAndSwap(nil, &FullError{Space: sp, Quota: quota, Store: true, Written: taken(dir)})
}

// noQuota reports whether a quota forbids to write even fullBytes to dir.
func noQuota(dir string) bool {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err == nil {
		err = unix.Fallocate(fd, 0, 0, fullBytes)
		_ = unix.Close(fd)
	}
	return errors.Is(err, unix.EDQUOT)
}

// taken returns the disk space in bytes that the files in dir take.
func taken(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be seen is not counted
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				total += st.Blocks * 512 // stat(2): blocks of 512 bytes on every file system
			}
		}
		return nil
	})
	return total
}

// NoSpace returns err as a FullError if its cause is lack of space, or if the file system
// was full when a layer could not be made. Otherwise it returns err itself. dirs are
// further directories that the caller wrote to.
func (s *Store) NoSpace(err error, dirs ...string) error {
	if _, ok := errors.AsType[*FullError](err); ok || err == nil {
		return err
	}
	if noted := s.full.Load(); noted != nil {
		full := *noted
		full.Err = err
		return &full
	}
	return NoSpace(err, s.GraphRoot(), append(dirs, s.RunRoot(), os.TempDir())...)
}
