package export

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/shale-build/shale/storage/blobs"
	"github.com/shale-build/shale/storage/registry"
)

// Images and caches may be written to the same layout at the same time.
func TestLayoutHasManyWriters(t *testing.T) {
	const writers = 4 // of each kind
	for round := range 20 {
		dir := t.TempDir()
		var all errgroup.Group
		for i := range writers {
			all.Go(func() error { return addImage(t, dir, i) })
			all.Go(func() error { return addCache(t, dir, i) })
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
		l, err := blobs.OpenLayout(dir)
		if err != nil {
			t.Fatal(err)
		}
		index, err := l.Index()
		if err != nil {
			t.Fatal(err)
		}
		if len(index.Manifests) != 2*writers {
			t.Errorf("round %d: %d entries, want %d", round, len(index.Manifests), 2*writers)
		}
		for _, m := range index.Manifests {
			if has, err := l.Has(t.Context(), m); !has || err != nil {
				t.Errorf("round %d: no manifest %s, %v", round, m.Digest, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func addImage(t *testing.T, dir string, i int) error {
	t.Helper()
	l, err := blobs.OpenLayout(dir)
	if err != nil {
		return err
	}
	defer l.Close()
	data := fmt.Appendf(nil, `{"layers":[],"annotations":{"i":"%d"}}`, i)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(data), Size: int64(len(data)), Annotations: map[string]string{}}
	if _, _, err := l.Put(t.Context(), desc, bytes.NewReader(data)); err != nil {
		return err
	}
	return AddToLayout(t.Context(), l, named(desc, []string{fmt.Sprintf("localhost/a:%d", i)}))
}

func addCache(t *testing.T, dir string, i int) error {
	t.Helper()
	l, err := registry.New(nil, registry.Options{}).OpenLayout(t.Context(), dir)
	if err != nil {
		return err
	}
	defer l.Close()
	config := fmt.Appendf(nil, `{"i":%d}`, i)
	src := registry.Prepared{
		MediaType: ocispec.MediaTypeImageManifest,
		Manifest:  fmt.Appendf(nil, `{"config":{"digest":%q,"size":%d}}`, digest.FromBytes(config), len(config)),
		Open: func(digest.Digest) (io.ReadCloser, int64, error) {
			return io.NopCloser(bytes.NewReader(config)), int64(len(config)), nil
		},
	}
	if err := l.Write(t.Context(), src, fmt.Sprintf("c%d", i), nil); err != nil {
		return err
	}
	return l.Sweep(t.Context(), "none", time.Now().Add(-time.Hour))
}
