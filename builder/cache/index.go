package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// touchAfter is how old a record's time of use may grow before a hit renews
// it: renewing at every hit would cost a write for every cached step.
const touchAfter = time.Hour

// Record is what an operation gave.
type Record struct {
	// Layer is the ID of the topmost layer, "" when the result is empty.
	Layer string `json:"layer"`
	// Chain is the chainID of that layer (image-spec, config.md), "" when
	// the result is empty.
	Chain digest.Digest `json:"chain,omitempty"`
	// Created is when the operation ran.
	Created time.Time `json:"created"`
	// Description is the step's name, for listings.
	Description string `json:"description,omitempty"`
}

// Index is a directory of records.
type Index struct {
	dir  string
	lock *os.File
}

// Open opens the index in dir, which must exist, and holds it against a Prune
// until Close. Opening waits for a Prune under way.
func Open(ctx context.Context, dir string) (*Index, error) {
	lock, err := openLock(dir)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, lock, unix.LOCK_SH); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return &Index{dir: dir, lock: lock}, nil
}

// Close lets a Prune in.
func (x *Index) Close() error {
	if err := x.lock.Close(); err != nil {
		return fmt.Errorf("close cache index: %w", err)
	}
	return nil
}

// Get looks a key up and renews its time of use.
func (x *Index) Get(key Key) (Record, bool) {
	path := x.path(key)
	data, err := os.ReadFile(path)
	if err != nil {
		return Record{}, false
	}
	var rec Record
	if json.Unmarshal(data, &rec) != nil {
		return Record{}, false
	}
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > touchAfter {
		now := time.Now()
		// A record that cannot be touched is only pruned earlier.
		_ = os.Chtimes(path, now, now)
	}
	return rec, true
}

// Put records what key gave, replacing what was known.
func (x *Index) Put(key Key, rec Record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode cache record: %w", err)
	}
	path := x.path(key)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make cache directory: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return fmt.Errorf("write cache record: %w", err)
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write cache record: %w", err)
	}
	return nil
}

// Entry is a record with its key and time of last use.
type Entry struct {
	Key Key
	Record
	Used time.Time
}

// List returns every record; those that cannot be read are left out.
func (x *Index) List() ([]Entry, error) { return list(x.dir) }

func list(dir string) ([]Entry, error) {
	var entries []Entry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return ignoreGone(err)
		}
		if d.IsDir() {
			return nil
		}
		key := digest.NewDigestFromEncoded(digest.SHA256, filepath.Base(filepath.Dir(path))+d.Name())
		if key.Validate() == nil {
			if entry, ok := readEntry(path, key); ok {
				entries = append(entries, entry)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list cache records: %w", err)
	}
	return entries, nil
}

func readEntry(path string, key Key) (Entry, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, false
	}
	info, err := os.Stat(path)
	if err != nil {
		return Entry{}, false
	}
	entry := Entry{Key: key, Used: info.ModTime()}
	return entry, json.Unmarshal(data, &entry.Record) == nil
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// path spreads the records over 256 directories.
func (x *Index) path(key Key) string {
	hex := key.Encoded()
	return filepath.Join(x.dir, hex[:2], hex[2:])
}

func openLock(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open cache lock: %w", err)
	}
	return lock, nil
}

// flock waits for the lock, looking at ctx ten times a second.
func flock(ctx context.Context, f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", f.Name(), context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ErrBusy says that a build uses the store at this moment.
var ErrBusy = errors.New("a build is running in this store")
