package cachemount

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/shale-build/shale/internal/filelock"
	"github.com/shale-build/shale/internal/rmtree"
)

// Empty removes the content of the cache mounts with these IDs, for all seeds. It skips
// those that a step is using. They are also not restored during this build.
func (c *Caches) Empty(ids []string) error {
	c.mu.Lock()
	for _, id := range ids {
		if c.emptied == nil {
			c.emptied = map[string]bool{}
		}
		c.emptied[id] = true
	}
	c.mu.Unlock()
	slots, err := filepath.Glob(filepath.Join(c.dir, "*", "*", "info.json"))
	if err != nil {
		return fmt.Errorf("list cache mounts: %w", err)
	}
	for _, path := range slots {
		slot := filepath.Dir(path)
		in, err := readInfo(slot)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !slices.Contains(ids, in.ID) {
			continue
		}
		if err != nil {
			return fmt.Errorf("empty cache mounts: %w", err)
		}
		if _, err := c.Remove(Mount{ID: in.ID, dir: slot}); err != nil {
			return err
		}
	}
	return nil
}

// Mount is a cache mount in a list.
type Mount struct {
	Key Key
	ID  string
	// Slot is 0, or more for a directory that was created because all slots before it
	// were locked.
	Slot int
	Used time.Time
	// Size is the disk space of the files, in bytes.
	Size int64
	// InUse reports whether a step was using the slot when it was listed.
	InUse bool
	dir   string
}

type info struct {
	ID string `json:"id"`
}

func writeInfo(slot, id string) error {
	data, err := json.Marshal(info{ID: id})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(slot, "info.json"), data, 0o600)
}

// List returns all cache mounts with their sizes.
func (c *Caches) List() ([]Mount, error) {
	mounts, err := c.Find(func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	for i := range mounts {
		if mounts[i].Size, err = diskUsage(filepath.Join(mounts[i].dir, "data")); err != nil {
			return nil, fmt.Errorf("measure cache mount %q: %w", mounts[i].ID, err)
		}
	}
	return mounts, nil
}

// Find returns the cache mounts with matching IDs, without their sizes.
func (c *Caches) Find(match func(id string) bool) ([]Mount, error) {
	slots, err := filepath.Glob(filepath.Join(c.dir, "*", "*", "info.json"))
	if err != nil {
		return nil, fmt.Errorf("list cache mounts: %w", err)
	}
	var mounts []Mount
	for _, path := range slots {
		m, err := readMount(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed in the meantime
		}
		if err != nil {
			return nil, fmt.Errorf("list cache mounts: %w", err)
		}
		if match(m.ID) {
			mounts = append(mounts, m)
		}
	}
	return mounts, nil
}

func readInfo(slot string) (in info, err error) {
	data, err := os.ReadFile(filepath.Join(slot, "info.json"))
	if err != nil {
		return in, err
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return in, fmt.Errorf("read %s: %w", slot, err)
	}
	return in, nil
}

func readMount(slot string) (Mount, error) {
	in, err := readInfo(slot)
	if err != nil {
		return Mount{}, err
	}
	st, err := os.Stat(slot)
	if err != nil {
		return Mount{}, err
	}
	n, err := strconv.Atoi(filepath.Base(slot))
	if err != nil {
		return Mount{}, err
	}
	return Mount{
		Key: Key(filepath.Base(filepath.Dir(slot))), ID: in.ID, Slot: n,
		Used: st.ModTime(), InUse: inUse(slot), dir: slot,
	}, nil
}

// inUse reports whether a step holds the lock of a slot.
func inUse(slot string) bool {
	lock, err := os.Open(filepath.Join(slot, "lock"))
	if err != nil {
		return false
	}
	defer lock.Close()
	locked, err := filelock.Try(lock, filelock.Exclusive)
	return !locked && err == nil
}

func diskUsage(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if uncounted(err) {
			return nil
		}
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if uncounted(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := fi.Sys().(*syscall.Stat_t); ok {
			total += st.Blocks * 512 // stat(2): st_blocks are 512 bytes on all file systems
		}
		return nil
	})
	return total, err
}

// uncounted reports whether err is from a file that was removed, or from one so deep that
// its path is too long. Only rmtree can reach such a file.
func uncounted(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG)
}

// Remove removes a cache mount if no step is using it. It reports whether it did so.
func (c *Caches) Remove(m Mount) (bool, error) {
	lock, err := os.OpenFile(filepath.Join(m.dir, "lock"), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove cache mount %q: %w", m.ID, err)
	}
	defer lock.Close()
	if locked, err := filelock.Try(lock, filelock.Exclusive); !locked || err != nil {
		return false, err
	}
	// Keep the lock file. Otherwise a process that waits for the lock would get a lock on
	// a file without a name.
	for _, name := range []string{"info.json", "data"} {
		if err := rmtree.Remove(filepath.Join(m.dir, name)); err != nil {
			return false, fmt.Errorf("remove cache mount %q: %w", m.ID, err)
		}
	}
	return true, nil
}
