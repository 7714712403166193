package cache_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/storage"
)

func key(s string) cache.Key { return cache.NewHasher("test").String(s).Key() }

func TestHasherFramesFields(t *testing.T) {
	keys := map[cache.Key]string{}
	for name, h := range map[string]*cache.Hasher{
		"ab":            cache.NewHasher("k").String("ab"),
		"a,b":           cache.NewHasher("k").String("a").String("b"),
		"b,a":           cache.NewHasher("k").String("b").String("a"),
		"list ab":       cache.NewHasher("k").Strings([]string{"ab"}),
		"list a,b":      cache.NewHasher("k").Strings([]string{"a", "b"}),
		"list a + b":    cache.NewHasher("k").Strings([]string{"a"}).String("b"),
		"empty list":    cache.NewHasher("k").Strings(nil),
		"empty string":  cache.NewHasher("k").String(""),
		"nothing":       cache.NewHasher("k"),
		"other kind":    cache.NewHasher("l"),
		"true":          cache.NewHasher("k").Bool(true),
		"nul in string": cache.NewHasher("k").String("a\x00b"),
	} {
		k := h.Key()
		if other, ok := keys[k]; ok {
			t.Errorf("%q and %q have the same key", name, other)
		}
		keys[k] = name
	}
}

func TestIndex(t *testing.T) {
	dir := t.TempDir()
	x := cache.Open(dir)
	if _, ok := x.Get(key("a")); ok {
		t.Fatal("a key nobody recorded was found")
	}
	want := cache.Record{Layer: "l", Chain: key("chain"), Created: time.Unix(5, 7).UTC(), Description: "RUN x"}
	if err := x.Put(key("a"), want); err != nil {
		t.Fatal(err)
	}
	got, ok := cache.Open(dir).Get(key("a"))
	if !ok {
		t.Fatal("the record was not found")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("record (-want +got):\n%s", diff)
	}
}

func TestCreated(t *testing.T) {
	dir := t.TempDir()
	x := cache.Open(dir)
	if _, ok := x.Created("a"); ok {
		t.Error("the time of a layer that nobody told of is known")
	}
	at := time.Unix(5, 7).UTC()
	if err := x.PutCreated("a", at); err != nil {
		t.Fatal(err)
	}
	if got, ok := x.Created("a"); !ok || !got.Equal(at) {
		t.Errorf("time is %v, %v, want %v", got, ok, at)
	}
	usages, err := cache.Collect(dir, &layers{noRest: true})
	if err != nil || len(usages) != 0 {
		t.Errorf("a layer of an image is listed: %+v, %v", usages, err)
	}
	if err := x.PutCreated("foreign", at); err != nil {
		t.Fatal(err)
	}
	if usages, err = cache.Collect(dir, &layers{noRest: true}); err != nil || len(usages) != 1 || usages[0].Layer != "foreign" {
		t.Errorf("an imported layer that no image has is not listed: %+v, %v", usages, err)
	}
}

func TestDamagedRecordIsAMiss(t *testing.T) {
	dir := t.TempDir()
	x := cache.Open(dir)
	if err := x.Put(key("a"), cache.Record{Layer: "l"}); err != nil {
		t.Fatal(err)
	}
	hex := key("a").Encoded()
	if err := os.WriteFile(filepath.Join(dir, hex[:2], hex[2:]), []byte(`{"layer":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Get(key("a")); ok {
		t.Error("a damaged record was a hit")
	}
	if entries, err := x.List(); err != nil || len(entries) != 0 {
		t.Errorf("a damaged record is listed: %v, %v", entries, err)
	}
}

func TestConcurrentPuts(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		x := cache.Open(dir)
		wg.Go(func() {
			for j := range 50 {
				if err := x.Put(key("same"), cache.Record{Layer: fmt.Sprint(i, j)}); err != nil {
					t.Error(err)
				}
				if _, ok := x.Get(key("same")); !ok {
					t.Error("a record vanished")
				}
			}
		})
	}
	wg.Wait()
}

// layers is a store with the chains a ← b ← c and d ← e. b is in an image. f ← g are two
// layers of a removed image, and g was recorded by shale. If noRest is set, they are left
// out. Layers in held are in use.
type layers struct {
	deleted, held []string
	noRest        bool
}

var longAgo = time.Now().Add(-100 * time.Hour)

func (l *layers) Layers() ([]storage.Layer, error) {
	var out []storage.Layer
	for _, x := range []storage.Layer{
		{ID: "a", Size: 10},
		{ID: "b", Parent: "a", Size: 10},
		{ID: "c", Parent: "b", Size: 10},
		{ID: "d", Size: 10},
		{ID: "e", Parent: "d", Size: 10},
		{ID: "foreign", Size: 10},
		{ID: "f", Size: 10, Created: longAgo},
		{ID: "g", Parent: "f", Size: 10, Own: true, Created: longAgo},
		{ID: "shared", Size: 10, Own: true, ReadOnly: true},
	} {
		if !slices.Contains(l.deleted, x.ID) && (!l.noRest || !strings.Contains("f g", x.ID)) {
			out = append(out, x)
		}
	}
	return out, nil
}

func (l *layers) Images() ([]storage.Image, error) {
	return []storage.Image{{ID: "i", TopLayer: "b"}}, nil
}

func (l *layers) DeleteLayer(id string) error {
	if slices.Contains(l.held, id) {
		return storage.ErrLayerInUse
	}
	l.deleted = append(l.deleted, id)
	return nil
}

// fill writes records of the layers in hours, each last used that many hours ago.
func fill(t *testing.T, dir string, hours map[string]int) {
	t.Helper()
	x := cache.Open(dir)
	for id, h := range hours {
		if err := x.Put(key(id), cache.Record{Layer: id, Description: "step " + id}); err != nil {
			t.Fatal(err)
		}
		hex := key(id).Encoded()
		at := time.Now().Add(-time.Duration(h) * time.Hour)
		if err := os.Chtimes(filepath.Join(dir, hex[:2], hex[2:]), at, at); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPrune(t *testing.T) {
	hours := map[string]int{"a": 1, "b": 1, "c": 5, "d": 9, "e": 9}
	tests := []struct {
		name   string
		policy cache.Policy
		held   []string
		want   []string
	}{
		{name: "all that no image holds", want: []string{"e", "c", "d", "f", "g"}},
		{name: "by age", policy: cache.Policy{Until: time.Now().Add(-7 * time.Hour)}, want: []string{"e", "d", "f", "g"}},
		{name: "by size", policy: cache.Policy{KeepBytes: 20}, want: []string{"e", "f", "g"}},
		{name: "beside builds", held: []string{"e", "f"}, want: []string{"c", "g"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			fill(t, dir, hours)
			l := &layers{held: test.held}
			dry := test.policy
			dry.DryRun = true
			would, err := cache.Prune(t.Context(), dir, l, dry)
			if err != nil || len(l.deleted) != 0 {
				t.Fatalf("dry run deleted %v, error %v", l.deleted, err)
			}
			did, err := cache.Prune(t.Context(), dir, l, test.policy)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(l.deleted)
			want := slices.Sorted(slices.Values(test.want))
			if diff := cmp.Diff(want, l.deleted); diff != "" {
				t.Errorf("deleted (-want +got):\n%s", diff)
			}
			if len(would) != len(did) && test.held == nil {
				t.Errorf("the dry run named %d layers, %d were removed", len(would), len(did))
			}
			x := cache.Open(dir)
			for id := range hours {
				_, ok := x.Get(key(id))
				if gone := slices.Contains(l.deleted, id); ok == gone {
					t.Errorf("record of %s: found %v, layer deleted %v", id, ok, gone)
				}
			}
		})
	}
}
