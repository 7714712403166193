package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of the cache. They are looked at after a fetch; what was used longest
// ago goes first.
const (
	maxRepositories = 64
	maxCacheSize    = 8 << 30
)

// bare is a cached repository, locked. A shared lock allows reading, an
// exclusive one fetching and removing.
type bare struct {
	dir  string // of the cache entry
	path string // of the repository
	lock *os.File
}

// open locks the entry of a remote, which may not have a repository yet.
func (r *Repositories) open(ctx context.Context, remote string, how int) (*bare, error) {
	sum := sha256.Sum256([]byte(remote))
	dir := filepath.Join(r.opts.Dir, hex.EncodeToString(sum[:16]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make cache of git repositories: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open cached git repository: %w", err)
	}
	b := &bare{dir: dir, path: filepath.Join(dir, "repository"), lock: lock}
	if err := b.wait(ctx, how); err != nil {
		return nil, errors.Join(fmt.Errorf("lock cached git repository: %w", err), lock.Close())
	}
	now := time.Now()
	if err := os.Chtimes(lock.Name(), now, now); err != nil {
		return nil, errors.Join(fmt.Errorf("mark cached git repository as used: %w", err), lock.Close())
	}
	return b, nil
}

func (b *bare) wait(ctx context.Context, how int) error {
	for {
		err := unix.Flock(int(b.lock.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (b *bare) close() { _ = b.lock.Close() }

// prepare makes the repository, or removes what a killed fetch left in it.
func (b *bare) prepare(ctx context.Context, g command, object string) error {
	if _, err := os.Lstat(b.path); err == nil {
		return b.tidy()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh := b.path + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	g.gitDir = fresh
	if _, err := g.run(ctx, "init", "--quiet", "--bare", objectFormat(object)); err != nil {
		return err
	}
	// For the fetch from here into a checkout.
	for _, v := range [][]string{{"uploadpack.allowAnySHA1InWant", "true"}, {"gc.auto", "0"}} {
		if _, err := g.run(ctx, append([]string{"config"}, v...)...); err != nil {
			return err
		}
	}
	return os.Rename(fresh, b.path)
}

func objectFormat(object string) string {
	if len(object) == 64 {
		return "--object-format=sha256"
	}
	return "--object-format=sha1"
}

// tidy removes lock files and half-written packs. The exclusive lock tells that
// no git is at work here.
func (b *bare) tidy() error {
	return filepath.WalkDir(b.path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if len(name) == 2 && filepath.Base(filepath.Dir(path)) == "objects" {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "tmp_") || strings.HasPrefix(name, ".tmp-") {
			return os.Remove(path) //nolint:gosec // under our lock, in our directory
		}
		return nil
	})
}

// drop forgets the repository.
func (b *bare) drop() error {
	for _, path := range []string{b.path, b.path + ".new"} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove cached git repository: %w", err)
		}
	}
	return nil
}

// entry is a cached repository as the bounds see it.
type entry struct {
	dir  string
	used time.Time
	size int64
}

// Trim removes the repositories in the cache directory dir that were used
// longest ago until no more than keep bytes are left. Those in use stay. It
// returns the number of bytes that were freed.
func Trim(dir string, keep int64) (int64, error) { return trim(dir, keep, maxRepositories) }

func trim(dir string, keep int64, count int) (int64, error) {
	entries, err := list(dir)
	if err != nil {
		return 0, err
	}
	slices.SortFunc(entries, func(a, b entry) int { return b.used.Compare(a.used) })
	var total, freed int64
	for i, e := range entries {
		if total+e.size <= keep && i < count {
			total += e.size
			continue
		}
		gone, err := remove(e.dir)
		if err != nil {
			return freed, err
		}
		if gone {
			freed += e.size
		}
	}
	return freed, nil
}

// Size returns the number of bytes in the cache directory dir.
func Size(dir string) (int64, error) {
	entries, err := list(dir)
	var total int64
	for _, e := range entries {
		total += e.size
	}
	return total, err
}

func list(dir string) ([]entry, error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list cached git repositories: %w", err)
	}
	var entries []entry
	for _, n := range names {
		e := entry{dir: filepath.Join(dir, n.Name())}
		info, err := os.Stat(filepath.Join(e.dir, "lock"))
		if err != nil {
			continue
		}
		e.used = info.ModTime()
		if e.size, err = du(filepath.Join(e.dir, "repository")); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func du(dir string) (int64, error) {
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

// remove empties an entry nobody uses. The lock file stays: whoever waits for
// it must find the same one.
func remove(dir string) (bool, error) {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return false, nil
	}
	defer func() { _ = lock.Close() }()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false, nil
	}
	b := &bare{dir: dir, path: filepath.Join(dir, "repository")}
	return true, b.drop()
}
