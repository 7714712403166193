package cachemount_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shale-build/shale/builder/cachemount"
)

func acquire(t *testing.T, c *cachemount.Caches, req cachemount.Request) *cachemount.Lease {
	t.Helper()
	l, err := c.Acquire(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func release(t *testing.T, leases ...*cachemount.Lease) {
	t.Helper()
	for _, l := range leases {
		if err := l.Release(); err != nil {
			t.Error(err)
		}
	}
}

func write(t *testing.T, l *cachemount.Lease, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(l.Dir, name), []byte(name), 0o600); err != nil {
		t.Fatal(err)
	}
}

func has(l *cachemount.Lease, name string) bool {
	_, err := os.Lstat(filepath.Join(l.Dir, name))
	return err == nil
}

func TestContentStays(t *testing.T) {
	for _, sharing := range []cachemount.Sharing{cachemount.Shared, cachemount.Private, cachemount.Locked} {
		c := cachemount.New(t.TempDir())
		l := acquire(t, c, cachemount.Request{ID: "id", Sharing: sharing})
		write(t, l, "file")
		release(t, l)
		l = acquire(t, c, cachemount.Request{ID: "id", Sharing: sharing})
		if !has(l, "file") {
			t.Errorf("sharing %d: the content is gone", sharing)
		}
		other := acquire(t, c, cachemount.Request{ID: "other", Sharing: sharing})
		if has(other, "file") {
			t.Errorf("sharing %d: another id shows the same content", sharing)
		}
		seeded := acquire(t, c, cachemount.Request{ID: "id", Seed: "seed", Sharing: sharing})
		if has(seeded, "file") {
			t.Errorf("sharing %d: another seed shows the same content", sharing)
		}
		release(t, l, other, seeded)
	}
}

func TestHostileIDs(t *testing.T) {
	dir := t.TempDir()
	caches := filepath.Join(dir, "caches")
	if err := os.Mkdir(caches, 0o700); err != nil {
		t.Fatal(err)
	}
	c := cachemount.New(caches)
	for _, id := range []string{"../../x", "/etc", "", "a/../../b", "..", "\x00"} {
		l := acquire(t, c, cachemount.Request{ID: id})
		if rel, err := filepath.Rel(caches, l.Dir); err != nil || !filepath.IsLocal(rel) {
			t.Errorf("id %q lies at %s", id, l.Dir)
		}
		release(t, l)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("files outside the caches: %v, %v", left, err)
	}
}

func TestSharedIsShared(t *testing.T) {
	c := cachemount.New(t.TempDir())
	a := acquire(t, c, cachemount.Request{ID: "id"})
	b := acquire(t, c, cachemount.Request{ID: "id"})
	if a.Dir != b.Dir {
		t.Errorf("two directories: %s and %s", a.Dir, b.Dir)
	}
	release(t, a, b)
}

func TestPrivateIsNot(t *testing.T) {
	c := cachemount.New(t.TempDir())
	a := acquire(t, c, cachemount.Request{ID: "id", Sharing: cachemount.Private})
	b := acquire(t, c, cachemount.Request{ID: "id", Sharing: cachemount.Private})
	if a.Dir == b.Dir {
		t.Error("two private users share a directory")
	}
	release(t, a)
	again := acquire(t, c, cachemount.Request{ID: "id", Sharing: cachemount.Private})
	if again.Dir != a.Dir {
		t.Error("a free directory was not used again")
	}
	release(t, b, again)
}

func TestLockedWaits(t *testing.T) {
	c := cachemount.New(t.TempDir())
	a := acquire(t, c, cachemount.Request{ID: "id", Sharing: cachemount.Locked})
	var free atomic.Bool
	got := make(chan bool)
	go func() {
		l, err := c.Acquire(context.WithoutCancel(t.Context()), cachemount.Request{ID: "id", Sharing: cachemount.Locked})
		got <- err == nil && free.Load() && l.Release() == nil
	}()
	time.Sleep(50 * time.Millisecond)
	free.Store(true)
	release(t, a)
	if !<-got {
		t.Error("the second user did not wait for the first")
	}
}

func TestWaitingEndsWithTheBuild(t *testing.T) {
	c := cachemount.New(t.TempDir())
	a := acquire(t, c, cachemount.Request{ID: "id", Sharing: cachemount.Locked})
	defer release(t, a)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	time.AfterFunc(20*time.Millisecond, func() { cancel(stop) })
	if _, err := c.Acquire(ctx, cachemount.Request{ID: "id", Sharing: cachemount.Locked}); !errors.Is(err, stop) {
		t.Errorf("error is %v, want %v", err, stop)
	}
}

func TestFillOnce(t *testing.T) {
	c := cachemount.New(t.TempDir())
	fills := 0
	req := cachemount.Request{ID: "id", Seed: "s", Fill: func(_ context.Context, dir string) error {
		fills++
		return os.WriteFile(filepath.Join(dir, "seed"), nil, 0o600)
	}}
	for range 2 {
		l := acquire(t, c, req)
		if !has(l, "seed") {
			t.Error("the seed is missing")
		}
		release(t, l)
	}
	if fills != 1 {
		t.Errorf("filled %d times", fills)
	}
}

func TestFailedFillLeavesNothing(t *testing.T) {
	c := cachemount.New(t.TempDir())
	boom := errors.New("boom")
	req := cachemount.Request{ID: "id", Fill: func(_ context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o600), boom)
	}}
	if _, err := c.Acquire(t.Context(), req); !errors.Is(err, boom) {
		t.Fatalf("error is %v, want %v", err, boom)
	}
	l := acquire(t, c, cachemount.Request{ID: "id"})
	if has(l, "half") {
		t.Error("a half filled directory is used")
	}
	release(t, l)
}

func TestEmpty(t *testing.T) {
	c := cachemount.New(t.TempDir())
	empty := func(ids ...string) {
		t.Helper()
		if err := c.Empty(ids); err != nil {
			t.Fatal(err)
		}
	}
	seeded := cachemount.Request{ID: "id", Seed: "seed"}
	for _, req := range []cachemount.Request{{ID: "id"}, seeded, {ID: "other"}} {
		l := acquire(t, c, req)
		write(t, l, "file")
		release(t, l)
	}
	inUse := acquire(t, c, cachemount.Request{ID: "id"})
	empty("id", "none")
	if !has(inUse, "file") {
		t.Error("a directory in use was emptied")
	}
	release(t, inUse)
	l := acquire(t, c, seeded)
	if has(l, "file") {
		t.Error("the directory with a seed was not emptied")
	}
	release(t, l)
	empty("id")
	for _, tt := range []struct {
		id   string
		want bool
	}{{"id", false}, {"other", true}} {
		l := acquire(t, c, cachemount.Request{ID: tt.id})
		if has(l, "file") != tt.want {
			t.Errorf("%s has its file: %v", tt.id, !tt.want)
		}
		release(t, l)
	}
}

func TestListAndRemove(t *testing.T) {
	c := cachemount.New(t.TempDir())
	l := acquire(t, c, cachemount.Request{ID: "id"})
	write(t, l, "file")
	mounts, err := c.List()
	if err != nil || len(mounts) != 1 || mounts[0].ID != "id" || mounts[0].Size == 0 {
		t.Fatalf("listed %+v, error %v", mounts, err)
	}
	if removed, err := c.Remove(mounts[0]); err != nil || removed {
		t.Errorf("removed in use: %v, %v", removed, err)
	}
	release(t, l)
	if removed, err := c.Remove(mounts[0]); err != nil || !removed {
		t.Errorf("not removed: %v, %v", removed, err)
	}
	if mounts, err := c.List(); err != nil || len(mounts) != 0 {
		t.Errorf("still listed: %+v, %v", mounts, err)
	}
	l = acquire(t, c, cachemount.Request{ID: "id"})
	if has(l, "file") {
		t.Error("the content came back")
	}
	release(t, l)
}
