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

// Empty removes what is in the cache mounts called ids, whatever their seeds,
// but for those that a step is using. This build does not restore them either.
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

// Mount is a cache mount as listings show it.
type Mount struct {
	Key Key
	ID  string
	// Slot is 0, or more for a directory that was made because the ones before
	// were in private use.
	Slot int
	Used time.Time
	// Size is the disk space of its files in bytes.
	Size int64
	// InUse tells that a step has it at this moment.
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

// Find returns the cache mounts whose IDs match, without their sizes.
func (c *Caches) Find(match func(id string) bool) ([]Mount, error) {
	slots, err := filepath.Glob(filepath.Join(c.dir, "*", "*", "info.json"))
	if err != nil {
		return nil, fmt.Errorf("list cache mounts: %w", err)
	}
	var mounts []Mount
	for _, path := range slots {
		m, err := readMount(filepath.Dir(path))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
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

// inUse tries the lock that steps take.
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
			total += st.Blocks * 512 // stat(2): blocks of 512 bytes, whatever the file system's
		}
		return nil
	})
	return total, err
}

// uncounted reports whether err is of a file that went away, or that is so deep
// that no path leads there, which only removing reaches.
func uncounted(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG)
}

// Remove deletes a cache mount unless a step is using it, and tells whether it
// did.
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
	// The lock file stays: whoever waits for it must not be left with a lock
	// on a file that has no name.
	for _, name := range []string{"info.json", "data"} {
		if err := rmtree.Remove(filepath.Join(m.dir, name)); err != nil {
			return false, fmt.Errorf("remove cache mount %q: %w", m.ID, err)
		}
	}
	return true, nil
}
