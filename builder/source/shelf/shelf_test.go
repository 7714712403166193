package shelf

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func put(t *testing.T, s Shelf, name string, size int, used time.Time) {
	t.Helper()
	e, err := s.Take(t.Context(), name, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.Dir, "content"), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chtimes(filepath.Join(e.Dir, lockName), used, used), e.Close()); err != nil {
		t.Fatal(err)
	}
}

func names(list []Usage) string {
	text := ""
	for _, u := range list {
		text += u.Name
	}
	return text
}

func TestTrim(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, tt := range []struct {
		name    string
		policy  Policy
		removed string
		left    string
	}{
		{"nothing", Policy{KeepBytes: 1000, KeepEntries: 9}, "", "abc"},
		{"bytes", Policy{KeepBytes: 250, KeepEntries: 9}, "c", "ab"},
		{"entries", Policy{KeepBytes: 1000, KeepEntries: 1}, "bc", "a"},
		{"all", Policy{}, "abc", ""},
		{"old ones", Policy{Until: now.Add(-90 * time.Minute)}, "bc", "a"},
		{"dry run", Policy{DryRun: true}, "abc", "abc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := Shelf(t.TempDir())
			put(t, s, "c", 100, now.Add(-3*time.Hour))
			put(t, s, "b", 100, now.Add(-2*time.Hour))
			put(t, s, "a", 100, now.Add(-time.Hour))
			removed, err := s.Trim(tt.policy)
			if err != nil || names(removed) != tt.removed {
				t.Errorf("removed %q, %v; want %q", names(removed), err, tt.removed)
			}
			left, err := s.List()
			if err != nil || names(left) != tt.left {
				t.Errorf("left %q, %v; want %q", names(left), err, tt.left)
			}
		})
	}
}

func TestInUse(t *testing.T) {
	t.Parallel()
	s := Shelf(t.TempDir())
	put(t, s, "a", 1, time.Now())
	e, err := s.Take(t.Context(), "a", Shared)
	if err != nil {
		t.Fatal(err)
	}
	if removed, err := s.Trim(Policy{}); err != nil || len(removed) > 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Take(ctx, "a", Exclusive); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	second, err := s.Take(t.Context(), "a", Shared)
	if err != nil {
		t.Fatal(err)
	}
	if second.TryLock() {
		t.Error("locked exclusively beside another")
	}
	if err := errors.Join(second.Close(), e.Close()); err != nil {
		t.Fatal(err)
	}
	if removed, err := s.Trim(Policy{}); err != nil || names(removed) != "a" {
		t.Errorf("removed %v, %v", removed, err)
	}
}
