// Package shelf keeps what was fetched in directories, one for each address,
// that builds running side by side share.
//
// An entry is locked while it is used (flock(2), so the lock ends with its
// process): shared to read, exclusive to change. Trim removes what was used
// longest ago and is not in use. What an entry holds is the business of those
// who fetch.
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

// lockName is the file that is locked. It stays when an entry is removed:
// whoever waits for it must find the same one.
const lockName = "lock"

// How an entry is locked.
const (
	Shared    = filelock.Shared
	Exclusive = filelock.Exclusive
)

// Shelf is a directory of entries.
type Shelf string

// Entry is an entry in use.
type Entry struct {
	// Dir is the entry's directory.
	Dir  string
	lock *os.File
}

// Take locks the entry called name, making an empty one if there is none. It
// waits until ctx ends.
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

// Lock changes how the entry is locked. In between it may not be locked at all.
func (e *Entry) Lock(ctx context.Context, how filelock.Mode) error {
	return filelock.Lock(ctx, e.lock, how)
}

// TryLock locks the entry exclusively unless somebody else uses it.
func (e *Entry) TryLock() bool {
	locked, err := filelock.Try(e.lock, Exclusive)
	return locked && err == nil
}

// Close lets others in.
func (e *Entry) Close() error { return e.lock.Close() }

// Empty removes all that is in the entry but what is called one of keep. The
// lock must be exclusive.
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

// Usage is what an entry takes.
type Usage struct {
	Name string
	Used time.Time
	Size int64
}

// List lists the entries that are not empty, the most recently used first.
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

// Policy says what Trim leaves.
type Policy struct {
	// KeepBytes and KeepEntries may stay, the most recently used ones.
	KeepBytes   int64
	KeepEntries int
	// Until spares what was used after it; zero spares nothing.
	Until time.Time
	// DryRun removes nothing.
	DryRun bool
}

// Trim removes what the policy does not keep and nobody uses, and returns it.
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
