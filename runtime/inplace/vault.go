package inplace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

// vault keeps the content of files with logins in memory while steps run. During that
// time the files are empty, because a step can read every file of the container. The
// guard inherits the file descriptor, so that it can restore the content if the builder
// is killed.
type vault struct {
	file *os.File
	// paths are relative to the root directory. A directory means all files directly in
	// it.
	paths []string
}

// kept is the content and metadata of one file in a vault.
type kept struct {
	Path         string
	Data         []byte
	Mode         uint32
	UID, GID     int
	Atime, Mtime unix.Timespec
}

// maxKept is the largest size of a file that a vault holds, in bytes. Larger files are
// not hidden.
const maxKept = 16 << 20

func newVault(paths []string) (*vault, error) {
	fd, err := unix.MemfdCreate("logins", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("keep logins in memory: %w", os.NewSyscallError("memfd_create", err))
	}
	return &vault{file: os.NewFile(uintptr(fd), "logins"), paths: paths}, nil
}

// Conceal hides the content of the files at paths from steps, for example of registry
// logins and SSH keys. A directory means all files directly in it. Files that do not
// exist, are on a mount point, or are in a protected path are skipped. Conceal must be
// called before Guard and Begin. It returns an error if it cannot create a file in
// memory.
func (r *Root) Conceal(paths []string) error {
	var inside []string
	for _, p := range paths {
		real, err := filepath.Abs(p)
		if err == nil {
			real, err = filepath.EvalSymlinks(real)
		}
		if err != nil {
			continue // the file does not exist
		}
		if below, ok := strings.CutPrefix(real, strings.TrimSuffix(r.dir, "/")+"/"); ok {
			inside = append(inside, below)
		}
	}
	if len(inside) == 0 {
		return nil
	}
	v, err := newVault(inside)
	r.vault = v
	return err
}

// fill moves the content of the files into the vault and truncates them. own is the open
// directory of the container's own files.
func (v *vault) fill(own int) error {
	var files []string
	for _, p := range v.paths {
		dir, err := confine.Open(own, p, unix.O_RDONLY|unix.O_DIRECTORY, 0, confine.Beneath|confine.NoSymlinks)
		if err != nil {
			files = append(files, p)
			continue
		}
		names, err := readNames(dir)
		_ = unix.Close(dir)
		if err != nil {
			return fmt.Errorf("list /%s: %w", p, err)
		}
		for _, name := range names {
			files = append(files, path.Join(p, name))
		}
	}
	var list []kept
	var open []*os.File
	defer func() {
		for _, f := range open {
			_ = f.Close()
		}
	}()
	for _, p := range files {
		f, k, err := take(own, p)
		if err != nil {
			return fmt.Errorf("keep /%s from steps: %w", p, err)
		}
		if f != nil {
			list, open = append(list, *k), append(open, f)
		}
	}
	if err := v.write(list); err != nil {
		return err
	}
	for _, f := range open {
		if err := f.Truncate(0); err != nil {
			return fmt.Errorf("keep a login from steps: %w", err)
		}
	}
	return nil
}

// take reads one file and returns it open. It returns nil if there is no such file.
func take(own int, p string) (*os.File, *kept, error) {
	fd, err := confine.Open(own, p, unix.O_RDWR|unix.O_NONBLOCK, 0, confine.Beneath|confine.NoSymlinks)
	if err != nil {
		return nil, nil, nil //nolint:nilerr // no file here: on a volume, a socket, or there is none
	}
	f := os.NewFile(uintptr(fd), p)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 || st.Size > maxKept {
		return nil, nil, f.Close()
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKept))
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, &kept{Path: p, Data: data, Mode: st.Mode & 0o7777, UID: int(st.Uid), GID: int(st.Gid), Atime: st.Atim, Mtime: st.Mtim}, nil
}

// write replaces the content of the vault.
func (v *vault) write(list []kept) error {
	data, err := json.Marshal(list)
	if err == nil {
		err = v.file.Truncate(0)
	}
	if err == nil {
		_, err = v.file.WriteAt(data, 0)
	}
	if err != nil {
		return fmt.Errorf("keep logins in memory: %w", err)
	}
	return nil
}

// empty writes the content in the vault back to the files below the open directory root.
// If all writes succeed, it clears the vault.
func (v *vault) empty(root int) error {
	data, err := io.ReadAll(io.NewSectionReader(v.file, 0, 1<<62))
	if err != nil {
		return fmt.Errorf("put logins back: %w", err)
	}
	if len(data) == 0 {
		return nil
	}
	var list []kept
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("put logins back: %w", err)
	}
	var errs []error
	for _, k := range list {
		if err := k.put(root); err != nil {
			errs = append(errs, fmt.Errorf("put back /%s: %w", k.Path, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return v.write(nil)
}

func (k *kept) put(root int) error {
	fd, err := confine.Open(root, k.Path, unix.O_WRONLY|unix.O_CREAT|unix.O_NONBLOCK, 0o600, confine.Beneath|confine.NoSymlinks)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), k.Path)
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = unix.EINVAL // a step replaced the file
	}
	if err == nil {
		err = errors.Join(f.Truncate(0), f.Chown(k.UID, k.GID), unix.Fchmod(fd, k.Mode))
	}
	if err == nil {
		_, err = f.WriteAt(k.Data, 0)
	}
	if err == nil {
		err = unix.UtimesNanoAt(fd, "", []unix.Timespec{k.Atime, k.Mtime}, unix.AT_EMPTY_PATH)
	}
	return errors.Join(err, f.Close())
}
