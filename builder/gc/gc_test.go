package gc

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/storage"
)

// fakeStore has one layer of an image and three layers of the cache.
type fakeStore struct {
	root    string
	deleted []string
}

func (s *fakeStore) Layers() ([]storage.Layer, error) {
	all := []storage.Layer{
		{ID: "image", Size: 100},
		{ID: "below", Parent: "image", Size: 100},
		{ID: "above", Parent: "below", Size: 100},
		{ID: "old", Parent: "image", Size: 100},
	}
	return slices.DeleteFunc(all, func(l storage.Layer) bool { return slices.Contains(s.deleted, l.ID) }), nil
}

func (s *fakeStore) Images() ([]storage.Image, error) {
	return []storage.Image{{ID: "i", TopLayer: "image"}}, nil
}

func (s *fakeStore) DeleteLayer(id string) error {
	s.deleted = append(s.deleted, id)
	return nil
}

func (s *fakeStore) GraphRoot() string { return s.root }
func (s *fakeStore) FreeReserve()      {}
func (s *fakeStore) KeepReserve()      {}

// newCache returns a cache with records of all layers. The record of "below" is the
// oldest, but "below" counts as used as recently as "above", which is built on it.
func newCache(t *testing.T) (*Cache, *fakeStore) {
	t.Helper()
	dir, store := t.TempDir(), &fakeStore{root: t.TempDir()}
	x := cache.Open(dir)
	for id, hours := range map[string]int{"image": 9, "below": 8, "above": 1, "old": 5} {
		key := cache.NewHasher("test").String(id).Key()
		if err := x.Put(key, cache.Record{Layer: id}); err != nil {
			t.Fatal(err)
		}
		used := time.Now().Add(-time.Duration(hours) * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, key.Encoded()[:2], key.Encoded()[2:]), used, used); err != nil {
			t.Fatal(err)
		}
	}
	return &Cache{Store: store, Index: dir, Mounts: cachemount.New(t.TempDir())}, store
}

func TestCollect(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		limits Limits
		want   []string
	}{
		"within bounds":      {limits: Limits{MaxUsed: Amount{Bytes: 300}}},
		"the least recently": {limits: Limits{MaxUsed: Amount{Bytes: 200}}, want: []string{"old"}},
		"by age":             {limits: Limits{KeepDuration: 3 * time.Hour}, want: []string{"old"}},
		"all but the image":  {limits: Limits{MaxUsed: Amount{Bytes: 1}}, want: []string{"above", "below", "old"}},
		"never enough free":  {limits: Limits{MinFree: Amount{Bytes: 1 << 62}}, want: []string{"above", "below", "old"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, store := newCache(t)
			removed, err := c.Collect(t.Context(), tc.limits, time.Now())
			slices.Sort(store.deleted)
			if err != nil || !slices.Equal(store.deleted, tc.want) || removed.Entries != len(tc.want) {
				t.Errorf("deleted %v (%+v), %v; want %v", store.deleted, removed, err, tc.want)
			}
		})
	}
}

// Within a minute the cache is not listed again if there is enough free space.
func TestCollectAgain(t *testing.T) {
	t.Parallel()
	c, _ := newCache(t)
	limits := Limits{MaxUsed: Amount{Bytes: 200}}
	if removed, err := c.Collect(t.Context(), limits, time.Now()); err != nil || removed.Entries != 1 {
		t.Errorf("first: %+v, %v", removed, err)
	}
	limits.MaxUsed.Bytes = 1
	if removed, err := c.Collect(t.Context(), limits, time.Now()); err != nil || removed.Entries != 0 {
		t.Errorf("again: %+v, %v", removed, err)
	}
	limits.MinFree.Bytes = 1 << 62
	if removed, err := c.Collect(t.Context(), limits, time.Now()); err != nil || removed.Entries != 2 {
		t.Errorf("without space: %+v, %v", removed, err)
	}
}
