package recorded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/internal/confine"
)

// The owners of symbolic links, FIFOs and sockets are lost with the Table at the end of a
// build. For a directory that outlives the build, for example a cache mount, they are
// saved in a file beside the directory. With Beside, the owners of all files are saved.
// Files are identified by inode number and time of birth, or by handle, so a later file
// with the same name does not get the saved owner.

// linkRecord is one entry of the saved file.
type linkRecord struct {
	Inode uint64 `json:"ino"`
	Sec   int64  `json:"sec"`
	Nsec  uint32 `json:"nsec"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	// Type and Rdev are set for a file that stands for a device.
	Type uint32 `json:"type,omitempty"`
	Rdev uint64 `json:"rdev,omitempty"`
}

// RestoreLinks adds the records in file, which SaveLinks wrote, to the Table. A missing
// or damaged file is not an error. Records that an earlier call restored are skipped,
// because they may have changed since. It returns an error if the file cannot be read or
// the Table is full.
func (o *Owners) RestoreLinks(file string) error {
	list, err := readLinks(file)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range list {
		k := key{ino: l.Inode, sec: l.Sec, nsec: l.Nsec}
		if o.restored[k] {
			continue // the Table has the newer record
		}
		if o.restored == nil {
			o.restored = map[key]bool{}
		}
		o.restored[k] = true
		if err := o.table.set(k, Record{UID: l.UID, GID: l.GID, Type: l.Type, Rdev: l.Rdev}); err != nil {
			return fmt.Errorf("restore the owners in %s: %w", file, err)
		}
	}
	return nil
}

// HasLinks reports whether the Table has any records. Without Beside these are records of
// symbolic links, FIFOs and sockets.
func (o *Owners) HasLinks() bool { return !o.table.empty() }

func readLinks(file string) (list []linkRecord, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the owners of links: %w", err)
	}
	if json.Unmarshal(data, &list) != nil {
		return nil, nil //nolint:nilerr // cut by a crash of the machine
	}
	return list, nil
}

// SaveLinks writes the records of links, FIFOs and sockets below dir to file. With Beside
// it writes those of all files. Another build may have changed file since it was read, so
// SaveLinks merges its records first. If there are no records, SaveLinks removes the
// file. It returns an error if it cannot read the directory, or read or write the file.
func (o *Owners) SaveLinks(dir, file string) error {
	if err := o.RestoreLinks(file); err != nil {
		return err
	}
	if o.table.empty() {
		if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	list, err := o.linksIn(dir)
	if err != nil {
		return fmt.Errorf("find the owners of links in %s: %w", dir, err)
	}
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return replace(file, data)
}

// linksIn returns the records of files below dir. It does not follow symbolic links.
func (o *Owners) linksIn(dir string) ([]linkRecord, error) {
	list := []linkRecord{}
	err := o.each(dir, func(fd int, _ string) error {
		k, err := o.table.key(fd, "", 0)
		if r, ok := o.table.get(k); ok && err == nil && k.major == 0 && k.minor == 0 {
			list = append(list, linkRecord{Inode: k.ino, Sec: k.sec, Nsec: k.nsec, UID: r.UID, GID: r.GID, Type: r.Type, Rdev: r.Rdev})
		}
		return err
	})
	return list, err
}

// CopyLinks copies records of files below one directory (from) to the files with the same
// paths below another (to). These are the records of symbolic links, FIFOs and sockets,
// or with Beside of all files. Other files have their records in xattrs, which the caller
// must copy. It returns an error if a directory cannot be read or the Table is full.
func (o *Owners) CopyLinks(from, to string) error {
	if o.table.empty() {
		return nil
	}
	owners := map[string]Record{}
	err := o.each(from, func(fd int, name string) error {
		k, err := o.table.key(fd, "", 0)
		if r, ok := o.table.get(k); ok && err == nil {
			owners[name] = r
		}
		return err
	})
	if err == nil && len(owners) > 0 {
		err = o.each(to, func(fd int, name string) error {
			r, ok := owners[name]
			if !ok {
				return nil
			}
			k, err := o.table.key(fd, "", 0)
			if err != nil {
				return err
			}
			return o.table.set(k, r)
		})
	}
	if err != nil {
		return fmt.Errorf("copy the owners of links in %s: %w", from, err)
	}
	return nil
}

// each calls fn for every file below dir that may have a record in the Table. It passes a
// file descriptor opened with O_PATH, and the path. It does not follow symbolic links.
func (o *Owners) each(dir string, fn func(fd int, name string) error) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // only reads
	top, err := root.Open(".")
	if err != nil {
		return err
	}
	defer top.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another step removed it
		}
		if err != nil || !o.table.beside && (entry.IsDir() || entry.Type().IsRegular()) {
			return err
		}
		fd, err := confine.Open(int(top.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW, 0, confine.Beneath|confine.NoSymlinks)
		if err != nil {
			return nil // another step removed it
		}
		defer unix.Close(fd) //nolint:errcheck // O_PATH
		return fn(fd, name)
	})
}

// replace writes a file with os.Rename, so that it is never incomplete.
func replace(file string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+"-")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
	}
	return err
}
