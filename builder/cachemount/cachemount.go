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

// Sharing is how several steps use the same cache mount at the same time.
type Sharing int

// The sharing modes of a Dockerfile.
const (
	Shared Sharing = iota
	Private
	Locked
)

// Request identifies a cache mount and how it is used.
type Request struct {
	// ID is the ID in the Dockerfile, with BuildKit's namespace as a prefix.
	ID string
	// Seed identifies the initial content of the directory. It is "" if that is empty.
	Seed string
	// Fill copies the seed into a new directory. If it is nil, the directory stays empty.
	Fill    func(ctx context.Context, dir string) error
	Sharing Sharing
}

// Key identifies a cache mount. It has 32 hexadecimal digits, derived from the ID and the
// seed.
type Key string

func keyOf(req Request) Key {
	return Key(digest.FromString(strconv.Quote(req.ID) + req.Seed).Encoded()[:keyLen])
}

const keyLen = 32

// Validate returns an error if k is not a valid key.
func (k Key) Validate() error {
	if len(k) != keyLen || strings.Trim(string(k), "0123456789abcdef") != "" {
		return fmt.Errorf("key %q of a cache mount is not %d hexadecimal digits", string(k), keyLen)
	}
	return nil
}

// Restorer copies the content of a cache mount from another place, for example an
// imported cache, into dir, which is empty. It reports whether there was such content. If
// it returns an error, the content of dir is undefined.
type Restorer func(ctx context.Context, key Key, dir string) (found bool, err error)

// Caches is a directory of cache mounts, as used by one build. It is safe for concurrent
// use.
type Caches struct {
	dir string
	// Restore, if not nil, is called before a new cache mount is filled from its seed. It
	// must be set before the first use. If it returns an error, it must have reported
	// that to the user. The cache mount is then filled from its seed.
	Restore Restorer

	mu sync.Mutex
	// used are the keys of the mounts that were acquired. emptied are the IDs for which
	// Empty was called.
	used    map[Key]bool
	emptied map[string]bool
}

// Used reports whether a cache mount was acquired.
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

// New returns the cache mounts in dir, which must exist.
func New(dir string) *Caches { return &Caches{dir: dir} }

// Lease is a cache mount in use. The caller must release it.
type Lease struct {
	// Dir is the directory to mount.
	Dir  string
	lock *os.File
}

// Links returns the path of the file that contains the owners of links in the directory
// of a cache mount, if owners are recorded (see recorded.Owners). The file is kept with
// the directory.
func Links(dir string) string { return filepath.Join(filepath.Dir(dir), "links.json") }

// Release releases the lock. The directory stays.
func (l *Lease) Release() error {
	if err := l.lock.Close(); err != nil {
		return fmt.Errorf("release cache mount: %w", err)
	}
	return nil
}

// Acquire locks a cache mount and returns it. If it is new, Acquire creates its
// directory. If another step holds the lock of a locked or shared cache mount, Acquire
// waits until ctx is done, and then returns the cause of ctx.
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

// takeSlot locks a slot of the cache mount in base and returns the lock and the slot's
// directory. It creates slots as needed.
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

// lockSlot reports whether it has locked the file of a slot. In private mode it does not
// wait for the lock.
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

// prepare creates the data directory if it does not exist. The directory is filled under
// another name and then renamed, so that a killed process does not leave a half-filled
// directory. If several shared steps need it, one fills it and the others wait.
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

// touch sets the time of last use of a slot. It reports whether the slot has its data.
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

// removeHalf removes directories that a killed process was filling.
func removeHalf(slot string) error {
	left, err := filepath.Glob(filepath.Join(slot, "new-*"))
	for _, dir := range left {
		err = errors.Join(err, rmtree.Remove(dir))
	}
	return err
}

// fill creates a directory with the initial content of the cache mount and returns its
// path, also if it fails. Only the first slot is restored. The other slots are for steps
// that find it in use.
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

// restores reports whether Restore is to be called for a cache mount. It is not called
// for one that the build has emptied.
func (c *Caches) restores(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Restore != nil && !c.emptied[id]
}
