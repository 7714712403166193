// Package shelf caches fetched data in directories, one for each address. Parallel builds
// share them.
//
// An entry is locked while it is used: shared to read it, exclusive to change it. The
// lock is flock(2), so the kernel releases it when the process ends. Trim removes the
// entries that were not used for the longest time and are not in use. The callers define
// the content of an entry.
package shelf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/shale-build/shale/internal/filelock"
	"github.com/shale-build/shale/internal/rmtree"
)

// lockName is the name of the lock file. It stays when an entry is removed, because other
// processes may already wait for its lock.
const lockName = "lock"

// Modes of locking an entry.
const (
	Shared    = filelock.Shared
	Exclusive = filelock.Exclusive
)

// Shelf is the path of a directory with entries.
type Shelf string

// Entry is a locked entry.
type Entry struct {
	// Dir is the entry's directory.
	Dir  string
	lock *os.File
}

// Take locks the entry name and marks it as used. It creates an empty entry if necessary.
// It waits for the lock until ctx is cancelled. The caller must close the entry.
func (s Shelf) Take(ctx context.Context, name string, how filelock.Mode) (*Entry, error) {
	dir := filepath.Join(string(s), name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make cache entry: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open cache entry: %w", err)
	}
	e := &Entry{Dir: dir, lock: lock}
	if err := e.Lock(ctx, how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock cache entry %s: %w", dir, err), e.Close())
	}
	now := time.Now()
	if err := os.Chtimes(lock.Name(), now, now); err != nil {
		return nil, errors.Join(fmt.Errorf("mark cache entry as used: %w", err), e.Close())
	}
	return e, nil
}

// Lock changes the mode of the lock. The entry may be unlocked for a moment in between,
// so its content may change.
func (e *Entry) Lock(ctx context.Context, how filelock.Mode) error {
	return filelock.Lock(ctx, e.lock, how)
}

// TryLock locks the entry exclusively if no other process or caller uses it. It reports
// whether it has the lock.
func (e *Entry) TryLock() bool {
	locked, err := filelock.Try(e.lock, Exclusive)
	return locked && err == nil
}

// Close releases the lock.
func (e *Entry) Close() error { return e.lock.Close() }

// Empty removes all files of the entry except the names in keep. The caller must hold an
// exclusive lock.
func (e *Entry) Empty(keep ...string) error {
	names, err := os.ReadDir(e.Dir)
	if err != nil {
		return fmt.Errorf("list cache entry: %w", err)
	}
	for _, n := range names {
		if n.Name() == lockName || slices.Contains(keep, n.Name()) {
			continue
		}
		if err := rmtree.Remove(filepath.Join(e.Dir, n.Name())); err != nil {
			return fmt.Errorf("empty cache entry: %w", err)
		}
	}
	return nil
}

// Usage is the size and the last use of an entry.
type Usage struct {
	Name string
	Used time.Time
	Size int64
}

// List returns the entries that are not empty, the most recently used first.
func (s Shelf) List() ([]Usage, error) {
	names, err := os.ReadDir(string(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list cache: %w", err)
	}
	var list []Usage
	for _, n := range names {
		u := Usage{Name: n.Name()}
		info, err := os.Stat(filepath.Join(string(s), u.Name, lockName))
		if err != nil {
			continue
		}
		u.Used = info.ModTime()
		if u.Size, err = size(filepath.Join(string(s), u.Name)); err != nil {
			return nil, fmt.Errorf("measure cache entry: %w", err)
		}
		if u.Size > 0 {
			list = append(list, u)
		}
	}
	slices.SortFunc(list, func(a, b Usage) int { return b.Used.Compare(a.Used) })
	return list, nil
}

func size(dir string) (int64, error) {
	var total int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total, err
}

// Policy controls which entries Trim keeps.
type Policy struct {
	// KeepBytes and KeepEntries are the size and the number of entries that are kept. The
	// most recently used entries are kept first.
	KeepBytes   int64
	KeepEntries int
	// Until keeps all entries that were used after it. The zero time has no effect.
	Until time.Time
	// DryRun makes Trim return the entries without removing them.
	DryRun bool
}

// Trim removes the entries that the policy does not keep and that are not in use. It
// returns these entries.
func (s Shelf) Trim(p Policy) ([]Usage, error) {
	list, err := s.List()
	if err != nil {
		return nil, err
	}
	var removed []Usage
	var total int64
	for i, u := range list {
		spared := !p.Until.IsZero() && u.Used.After(p.Until)
		if spared || total+u.Size <= p.KeepBytes && i < p.KeepEntries {
			total += u.Size
			continue
		}
		gone, err := s.remove(u.Name, p.DryRun)
		if err != nil {
			return removed, err
		}
		if gone {
			removed = append(removed, u)
		}
	}
	return removed, nil
}

func (s Shelf) remove(name string, dryRun bool) (bool, error) {
	dir := filepath.Join(string(s), name)
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return false, nil
	}
	e := &Entry{Dir: dir, lock: lock}
	defer func() { _ = e.Close() }()
	if !e.TryLock() {
		return false, nil
	}
	if dryRun {
		return true, nil
	}
	return true, e.Empty()
}
