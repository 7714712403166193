package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func lockFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for _, c := range []struct {
		first, second Mode
		want          bool
	}{
		{Shared, Shared, true},
		{Shared, Exclusive, false},
		{Exclusive, Shared, false},
		{Exclusive, Exclusive, false},
	} {
		a, b := lockFile(t, path), lockFile(t, path)
		if ok, err := Try(a, c.first); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := Try(b, c.second); ok != c.want || err != nil {
			t.Errorf("%v after %v: %t, %v; want %t", c.second, c.first, ok, err, c.want)
		}
		_ = a.Close()
		if ok, err := Try(b, Exclusive); !ok || err != nil {
			t.Errorf("%v after %v was closed: %t, %v", c.second, c.first, ok, err)
		}
		_ = b.Close()
	}
}

// A wait must end with its context and return the cause.
func TestLockIsCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := lockFile(t, path), lockFile(t, path)
	if err := Lock(t.Context(), a, Exclusive); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("the cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if err := Lock(ctx, b, Shared); !errors.Is(err, cause) {
		t.Error(err)
	}
	if _, err := Open(ctx, Host{}, path, Shared); !errors.Is(err, cause) {
		t.Error(err)
	}
	if f, err := TryOpen(Host{}, path, Shared); f != nil || err != nil {
		t.Error(f, err)
	}
}

// If a holder removes the lock file, the next holder must not get the removed file.
func TestOpenRemoved(t *testing.T) {
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	var all sync.WaitGroup
	var inside, together int
	var mu sync.Mutex
	for range 8 {
		all.Go(func() {
			for range 20 {
				f, err := Open(t.Context(), dir, "lock", Exclusive)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside++
				together = max(together, inside)
				mu.Unlock()
				time.Sleep(100 * time.Microsecond)
				mu.Lock()
				inside--
				mu.Unlock()
				if err := dir.Remove("lock"); err != nil {
					t.Error(err)
				}
				_ = f.Close()
			}
		})
	}
	all.Wait()
	if together != 1 {
		t.Errorf("%d had the lock at a time", together)
	}
}

func TestOpenFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("other", filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if f, err := Open(t.Context(), Host{}, filepath.Join(dir, "lock"), Shared); err == nil {
		_ = f.Close()
		t.Error("opened a link")
	}
}
