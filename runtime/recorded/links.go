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

// The owners of links, FIFOs and sockets in a directory that outlives the build, as
// that of a cache mount, are kept in a file beside it; with Beside, those of all files.
// It names them by inode and birth, or handle: what is at their place another time is
// not taken for them.

// linkRecord is such a file.
type linkRecord struct {
	Inode uint64 `json:"ino"`
	Sec   int64  `json:"sec"`
	Nsec  uint32 `json:"nsec"`
	UID   uint32 `json:"uid"`
	GID   uint32 `json:"gid"`
	// Type and Rdev are those of a file that stands for a device.
	Type uint32 `json:"type,omitempty"`
	Rdev uint64 `json:"rdev,omitempty"`
}

// RestoreLinks makes known what file has, if it is there.
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
			continue // what became of it since is known better here
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

// HasLinks tells whether the owner of any link, FIFO or socket is known.
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

// SaveLinks writes to file who owns such files below dir, and what others found out
// about them meanwhile.
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

// linksIn finds them without following any.
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

// CopyLinks gives the links, FIFOs and sockets below the directory to the owners of
// those of the same names below from; with Beside, all files.
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

// each calls fn with every file below dir, open with O_PATH, whose record is in the
// table if it has one, and its path. No link is followed.
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

// replace writes a file that appears complete or not at all.
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
