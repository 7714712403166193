package cachemount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/shale-build/shale/internal/filelock"
	"github.com/shale-build/shale/internal/rmtree"
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

// Key tells cache mounts apart: 32 hexadecimal digits that follow from ID and
// seed.
type Key string

func keyOf(req Request) Key {
	return Key(digest.FromString(strconv.Quote(req.ID) + req.Seed).Encoded()[:keyLen])
}

const keyLen = 32

// Validate refuses what is no key.
func (k Key) Validate() error {
	if len(k) != keyLen || strings.Trim(string(k), "0123456789abcdef") != "" {
		return fmt.Errorf("key %q of a cache mount is not %d hexadecimal digits", string(k), keyLen)
	}
	return nil
}

// Restorer brings what a cache mount had elsewhere into dir, which is empty, and
// tells whether there was any. After an error dir may hold anything.
type Restorer func(ctx context.Context, key Key, dir string) (found bool, err error)

// Caches is a directory of cache mounts, as one build uses it. It is safe for
// concurrent use.
type Caches struct {
	dir string
	// Restore, if not nil, is asked before a new mount starts as its seed or
	// empty. It is set before the first use. An error it returns has been told
	// to the user; the mount starts as if there were nothing.
	Restore Restorer

	mu sync.Mutex
	// used are the mounts that were acquired, emptied the IDs that Empty was
	// called for.
	used    map[Key]bool
	emptied map[string]bool
}

// Used tells whether a mount was acquired.
func (c *Caches) Used(key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used[key]
}

func (c *Caches) note(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.used == nil {
		c.used = map[Key]bool{}
	}
	c.used[key] = true
}

// New keeps cache mounts below dir, which must exist.
func New(dir string) *Caches { return &Caches{dir: dir} }

// Lease is a cache mount in use.
type Lease struct {
	// Dir is the directory to mount.
	Dir  string
	lock *os.File
}

// Links is the path of the file that keeps the owners of links in a mount's directory
// where those are recorded (recorded.Owners). It stays with the directory.
func Links(dir string) string { return filepath.Join(filepath.Dir(dir), "links.json") }

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
	key := keyOf(req)
	base := filepath.Join(c.dir, string(key))
	if err := os.MkdirAll(base, 0o700); err != nil {
		return nil, fmt.Errorf("make cache mount %q: %w", req.ID, err)
	}
	lock, slot, err := takeSlot(ctx, base, req.Sharing)
	if err != nil {
		return nil, fmt.Errorf("lock cache mount %q: %w", req.ID, err)
	}
	lease := &Lease{Dir: filepath.Join(slot, "data"), lock: lock}
	if err := c.prepare(ctx, key, slot, req); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare cache mount %q: %w", req.ID, err), lease.Release())
	}
	c.note(key)
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
		locked, err := lockSlot(ctx, lock, sharing)
		if locked {
			return lock, slot, nil
		}
		_ = lock.Close()
		if err != nil {
			return nil, "", err
		}
	}
}

// lockSlot reports whether it locked the file of a slot: it does not wait for one that
// is to be private.
func lockSlot(ctx context.Context, lock *os.File, sharing Sharing) (bool, error) {
	switch sharing {
	case Private:
		return filelock.Try(lock, filelock.Exclusive)
	case Shared:
		err := filelock.Lock(ctx, lock, filelock.Shared)
		return err == nil, err
	default:
		err := filelock.Lock(ctx, lock, filelock.Exclusive)
		return err == nil, err
	}
}

// prepare makes the data directory when it does not exist. It appears by
// rename, complete with what it starts as, so that a kill in between leaves
// nothing half filled. Of several shared users one fills it, the others wait.
func (c *Caches) prepare(ctx context.Context, key Key, slot string, req Request) error {
	if done, err := touch(slot); done || err != nil {
		return err
	}
	filling, err := os.OpenFile(filepath.Join(slot, "filling"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer filling.Close()
	if err := filelock.Lock(ctx, filling, filelock.Exclusive); err != nil {
		return err
	}
	if done, err := touch(slot); done || err != nil {
		return err
	}
	if err := removeHalf(slot); err != nil {
		return err
	}
	tmp, err := c.fill(ctx, key, slot, req)
	if err == nil {
		err = writeInfo(slot, req.ID)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(slot, "data"))
	}
	if err != nil {
		_ = rmtree.Remove(tmp)
	}
	return err
}

// touch renews the time of use of a slot that has its data.
func touch(slot string) (done bool, err error) {
	if _, err := os.Lstat(filepath.Join(slot, "data")); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	now := time.Now()
	return true, os.Chtimes(slot, now, now)
}

// removeHalf removes what a killed process was filling.
func removeHalf(slot string) error {
	left, err := filepath.Glob(filepath.Join(slot, "new-*"))
	for _, dir := range left {
		err = errors.Join(err, rmtree.Remove(dir))
	}
	return err
}

// fill makes a directory with what the mount starts as and returns its path, also
// when that fails. Only a mount's first slot is restored: the others are for those
// who find it in use.
func (c *Caches) fill(ctx context.Context, key Key, slot string, req Request) (string, error) {
	if filepath.Base(slot) == "0" && c.restores(req.ID) {
		dir, err := newData(slot)
		if err != nil {
			return dir, err
		}
		found, err := c.Restore(ctx, key, dir)
		if err == nil && found {
			return dir, nil
		}
		if err := errors.Join(context.Cause(ctx), rmtree.Remove(dir)); err != nil {
			return dir, err
		}
	}
	dir, err := newData(slot)
	if err == nil && req.Fill != nil {
		err = req.Fill(ctx, dir)
	}
	return dir, err
}

func newData(slot string) (string, error) {
	dir, err := os.MkdirTemp(slot, "new-")
	if err == nil {
		err = os.Chmod(dir, 0o755) //nolint:gosec // docker's mode for a cache mount; the directory above is private
	}
	return dir, err
}

// restores tells whether to ask for what a mount had elsewhere: not for one that
// is to start anew.
func (c *Caches) restores(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Restore != nil && !c.emptied[id]
}
