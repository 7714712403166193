// Package cachemount keeps the directories behind RUN --mount=type=cache.
//
// A cache mount is known by its ID and by what seeded it, and lives on between
// builds. Its directories are slots: shared and locked use are of slot 0, under
// a shared or an exclusive lock; private use takes the first slot that nobody
// has. Locks are flock(2) locks on a file beside the data, so they hold between
// processes and end with them.
package cachemount

import (
	"context"
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

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Sharing is how several steps use one cache mount at a time.
type Sharing int

// The sharing modes of a Dockerfile.
const (
	Shared Sharing = iota
	Private
	Locked
)

// Request names a cache mount and how it is used.
type Request struct {
	// ID is what the Dockerfile says, with BuildKit's namespace before it.
	ID string
	// Seed identifies what the directory starts as, "" for empty.
	Seed string
	// Fill copies the seed into a new directory; nil leaves it empty.
	Fill    func(ctx context.Context, dir string) error
	Sharing Sharing
}

// Caches is a directory of cache mounts.
type Caches struct{ dir string }

// New keeps cache mounts below dir, which must exist.
func New(dir string) *Caches { return &Caches{dir: dir} }

// Lease is a cache mount in use.
type Lease struct {
	// Dir is the directory to mount.
	Dir  string
	lock *os.File
}

// Release lets others in. The directory stays.
func (l *Lease) Release() error {
	if err := l.lock.Close(); err != nil {
		return fmt.Errorf("release cache mount: %w", err)
	}
	return nil
}

// Acquire returns the directory of a cache mount, making it when it is new. A
// locked mount is waited for until ctx ends.
func (c *Caches) Acquire(ctx context.Context, req Request) (*Lease, error) {
	base := filepath.Join(c.dir, digest.FromString(strconv.Quote(req.ID) + req.Seed).Encoded()[:32])
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("make cache mount %q: %w", req.ID, err)
	}
	lock, slot, err := takeSlot(ctx, base, req.Sharing)
	if err != nil {
		return nil, fmt.Errorf("lock cache mount %q: %w", req.ID, err)
	}
	lease := &Lease{Dir: filepath.Join(slot, "data"), lock: lock}
	if err := prepare(ctx, slot, req); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare cache mount %q: %w", req.ID, err), lease.Release())
	}
	return lease, nil
}

func takeSlot(ctx context.Context, base string, sharing Sharing) (*os.File, string, error) {
	for i := 0; ; i++ {
		slot := filepath.Join(base, strconv.Itoa(i))
		if err := os.MkdirAll(slot, 0o700); err != nil {
			return nil, "", err
		}
		lock, err := os.OpenFile(filepath.Join(slot, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, "", err
		}
		err = lockSlot(ctx, lock, sharing)
		if err == nil {
			return lock, slot, nil
		}
		_ = lock.Close()
		if sharing != Private || !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, "", err
		}
	}
}

func lockSlot(ctx context.Context, lock *os.File, sharing Sharing) error {
	how := unix.LOCK_EX
	if sharing == Shared {
		how = unix.LOCK_SH
	}
	for {
		err := unix.Flock(int(lock.Fd()), how|unix.LOCK_NB)
		if err == nil || sharing == Private || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// prepare makes the data directory when it does not exist. It appears by
// rename, complete with its seed, so that a kill in between leaves nothing half
// filled and two shared users cannot both fill it.
func prepare(ctx context.Context, slot string, req Request) error {
	data := filepath.Join(slot, "data")
	if _, err := os.Lstat(data); err == nil {
		now := time.Now()
		return os.Chtimes(slot, now, now)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(slot, "new-")
	if err != nil {
		return err
	}
	err = os.Chmod(tmp, 0o755) //nolint:gosec // docker's mode for a cache mount; the directory above is private
	if err == nil && req.Fill != nil {
		err = req.Fill(ctx, tmp)
	}
	if err == nil {
		err = writeInfo(slot, req.ID)
	}
	if err == nil {
		err = os.Rename(tmp, data)
	}
	if err != nil {
		_ = os.RemoveAll(tmp)
		if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
			return nil // another shared user was first
		}
	}
	return err
}

// Empty removes what is in the cache mounts called ids, whatever their seeds,
// but for those that a step is using.
func (c *Caches) Empty(ids []string) error {
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
	ID   string
	Used time.Time
	// Size is the disk space of its files in bytes.
	Size int64
	dir  string
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

// List returns all cache mounts.
func (c *Caches) List() ([]Mount, error) {
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
		mounts = append(mounts, m)
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
	size, err := diskUsage(filepath.Join(slot, "data"))
	return Mount{ID: in.ID, Used: st.ModTime(), Size: size, dir: slot}, err
}

func diskUsage(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
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
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false, nil
	}
	// The lock file stays: whoever waits for it must not be left with a lock
	// on a file that has no name.
	for _, name := range []string{"info.json", "data"} {
		if err := os.RemoveAll(filepath.Join(m.dir, name)); err != nil {
			return false, fmt.Errorf("remove cache mount %q: %w", m.ID, err)
		}
	}
	return true, nil
}
