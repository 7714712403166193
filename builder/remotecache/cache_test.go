package remotecache

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/cachemount"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func id(s string) digest.Digest { return digest.FromString(s) }

func blob(s string, size int64) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: id("blob " + s), Size: size}
}

const mountKey = cachemount.Key("0123456789abcdef0123456789abcdef")

// example returns a cache with a base layer, two layers on it, their records, and a cache
// mount.
func example(t *testing.T) *Cache {
	t.Helper()
	c := &Cache{}
	base := add(t, c, "base", "", 100)
	a := add(t, c, "a", base, 10)
	b := add(t, c, "b", base, 20)
	record(t, c, "make a", a, noon)
	record(t, c, "make b", b, noon.Add(-time.Hour))
	record(t, c, "nothing", "", noon)
	c.AddMount(mountKey, Mount{ID: "/pkg", DiffID: id("tar"), Size: 99, Blob: blob("mount", 30), Used: noon})
	return c
}

func add(t *testing.T, c *Cache, name string, parent digest.Digest, size int64) digest.Digest {
	t.Helper()
	chain, err := c.AddLayer(Layer{DiffID: id(name), Blob: blob(name, size), Parent: parent, Created: noon.Add(time.Duration(size))})
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func record(t *testing.T, c *Cache, name string, chain digest.Digest, used time.Time) {
	t.Helper()
	if err := c.AddRecord(id(name), Record{Chain: chain, Created: noon.Add(-24 * time.Hour), Used: used, Description: name}); err != nil {
		t.Fatal(err)
	}
}

func encode(t *testing.T, c *Cache) (manifest, config []byte) {
	t.Helper()
	manifest, config, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return manifest, config
}

func TestEncodeDecode(t *testing.T) {
	c := example(t)
	manifest, config := encode(t, c)
	got, err := Decode(manifest, config)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got, cmp.AllowUnexported(Cache{})); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	again, _ := encode(t, got)
	if string(again) != string(manifest) {
		t.Error("equal caches are written differently")
	}
	r, ok := got.Record(id("make a"))
	if !ok {
		t.Fatal("record is missing")
	}
	var names []digest.Digest
	for _, l := range got.Layers(r.Chain) {
		names = append(names, l.DiffID)
	}
	if diff := cmp.Diff([]digest.Digest{id("base"), id("a")}, names); diff != "" {
		t.Errorf("layers (-want +got):\n%s", diff)
	}
}

func TestJoin(t *testing.T) {
	c, other := example(t), &Cache{}
	d := add(t, other, "d", "", 5)
	record(t, other, "make d", d, noon)
	record(t, other, "make a", d, noon) // c has another result for this key
	const more = cachemount.Key("ffffffffffffffffffffffffffffffff")
	for _, key := range []cachemount.Key{mountKey, more} {
		other.AddMount(key, Mount{ID: "other", DiffID: id("other"), Blob: blob("other", 1), Used: noon})
	}
	c.Join(other)
	for key, want := range map[cachemount.Key]string{mountKey: "/pkg", more: "other"} {
		if m, ok := c.Mount(key); !ok || m.ID != want {
			t.Errorf("cache mount %s is %+v", key, m)
		}
	}
	if r, _ := c.Record(id("make a")); r.Chain == d {
		t.Error("a record of the other cache replaced ours")
	}
	if r, ok := c.Record(id("make d")); !ok || len(c.Layers(r.Chain)) != 1 {
		t.Error("the other cache's record or layer is missing")
	}
}

func TestBound(t *testing.T) {
	tests := map[string]struct {
		after   time.Time
		size    int64
		records []string
		layers  int
		mounts  int
	}{
		"all":             {noon.Add(-2 * time.Hour), 160, []string{"make a", "make b", "nothing"}, 3, 1},
		"without mount":   {noon.Add(-2 * time.Hour), 159, []string{"make a", "make b", "nothing"}, 3, 0},
		"by age":          {noon.Add(-time.Minute), 1000, []string{"make a", "nothing"}, 2, 1},
		"by size":         {noon.Add(-2 * time.Hour), 129, []string{"make a", "nothing"}, 2, 0},
		"too small":       {noon.Add(-2 * time.Hour), 29, []string{"nothing"}, 0, 0},
		"older than that": {noon.Add(time.Second), 1000, nil, 0, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := example(t)
			c.Bound(tt.after, tt.size)
			if c.Len() != len(tt.records) || len(c.layers) != tt.layers || len(c.mounts) != tt.mounts {
				t.Errorf("%d records, %d layers and %d mounts are left, want %d, %d and %d",
					c.Len(), len(c.layers), len(c.mounts), len(tt.records), tt.layers, tt.mounts)
			}
			for _, r := range tt.records {
				if _, ok := c.Record(id(r)); !ok {
					t.Errorf("%q is gone", r)
				}
			}
		})
	}
}

func TestInline(t *testing.T) {
	c := example(t)
	image := fmt.Sprintf(`{"architecture":"amd64","vendor.field":{"x":1},"rootfs":{"type":"layers","diff_ids":[%q,%q]},
		"history":[{"created":"2026-03-01T12:00:00Z"},{"empty_layer":true},{"created":"2026-03-01T12:00:00.5Z"}]}`, id("base"), id("a"))
	data, err := c.Inline([]byte(image), []digest.Digest{id("base"), id("a")})
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(data, &fields); err != nil || fields["vendor.field"] == nil {
		t.Errorf("a field was lost, %v", err)
	}
	m := ocispec.Manifest{Layers: []ocispec.Descriptor{blob("base", 100), blob("a", 10)}}
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(manifest, data)
	if err != nil {
		t.Fatal(err)
	}
	r, ok := got.Record(id("make a"))
	if !ok || len(got.Layers(r.Chain)) != 2 {
		t.Fatal("the record of the image's topmost layer is missing")
	}
	if at := got.Layers(r.Chain)[1].Created; !at.Equal(noon.Add(500 * time.Millisecond)) {
		t.Errorf("the topmost layer was made at %v", at)
	}
	if _, ok := got.Record(id("make b")); ok {
		t.Error("a record of a layer that the image does not have is inside")
	}
	none, err := Decode(manifest, []byte(image))
	if err != nil || none.Len() != 0 {
		t.Errorf("an image without records gives %d, %v", none.Len(), err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	key, l := id("key"), id("layer")
	manifest := fmt.Sprintf(`{"config":{"mediaType":%q},"layers":[{"digest":%q}]}`, ConfigMediaType, l)
	for want, in := range map[string][2]string{
		"read cache manifest":           {"{", "{}"},
		"read cache config":             {manifest, "["},
		"invalid checksum digest":       {strings.Replace(manifest, l.String(), "sha256:../x", 1), "{}"},
		"not among the manifest's":      {manifest, fmt.Sprintf(`{"layers":[{"diffID":%q,"blob":%q,"parent":-1}]}`, l, key)},
		"diffID":                        {manifest, fmt.Sprintf(`{"layers":[{"diffID":"x","blob":%q,"parent":-1}]}`, l)},
		"cannot have layer 0 below it":  {manifest, fmt.Sprintf(`{"layers":[{"diffID":%q,"blob":%q,"parent":0}]}`, l, l)},
		"cannot have layer -2 below it": {manifest, fmt.Sprintf(`{"layers":[{"diffID":%q,"blob":%q,"parent":-2}]}`, l, l)},
		"there is no layer 3":           {manifest, fmt.Sprintf(`{"records":[{"key":%q,"layer":3}]}`, key)},
		"cache mount \"m\": its blob":   {manifest, fmt.Sprintf(`{"mounts":[{"id":"m","key":%q,"blob":%q}]}`, mountKey, key)},
		"32 hexadecimal digits":         {manifest, fmt.Sprintf(`{"mounts":[{"id":"m","key":"../x","blob":%q,"diffID":%q}]}`, l, l)},
		"it cannot have -1 bytes":       {manifest, fmt.Sprintf(`{"mounts":[{"id":"m","key":%q,"blob":%q,"diffID":%q,"size":-1}]}`, mountKey, l, l)},
		"record \"k\"":                  {manifest, `{"records":[{"key":"k","layer":-1}]}`},
	} {
		t.Run(want, func(t *testing.T) {
			if _, err := Decode([]byte(in[0]), []byte(in[1])); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	c := &Cache{}
	chain, _ := c.AddLayer(Layer{DiffID: id("x"), Blob: blob("x", 1)})
	_ = c.AddRecord(id("k"), Record{Chain: chain})
	manifest, config, err := c.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(manifest, config)
	f.Add([]byte(`{"layers":[]}`), []byte(`{"shale.cache.v1":{"records":[]}}`))
	f.Fuzz(func(t *testing.T, manifest, config []byte) {
		c, err := Decode(manifest, config)
		if err != nil {
			return
		}
		for key := range c.records {
			r, _ := c.Record(key)
			c.Layers(r.Chain)
		}
		if _, _, err := c.Encode(); err != nil {
			t.Error(err)
		}
		c.Bound(time.Time{}, 1<<40)
	})
}
