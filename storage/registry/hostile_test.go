package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
	"github.com/shale-build/shale/storage/storetest"
)

// forged is an image whose parts may contradict each other.
type forged struct {
	mediaType string
	manifest  []byte
	blobs     map[digest.Digest][]byte
}

func (f forged) digest() digest.Digest { return digest.FromBytes(f.manifest) }

// layerTar returns a layer with one file, uncompressed and compressed.
func layerTar(t *testing.T, name string, level int) (plain, packed []byte) {
	t.Helper()
	var buf, zipped bytes.Buffer
	tw := tar.NewWriter(&buf)
	if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(name))}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write([]byte(name)); err != nil {
		t.Fatal(err)
	}
	zw, err := gzip.NewWriterLevel(&zipped, level)
	if err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := zw.Write(buf.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes(), zipped.Bytes()
}

// forge returns an image with one layer for each of names. change may modify the config
// and the manifest.
func forge(t *testing.T, level int, names []string, change func(config, manifest map[string]any)) forged {
	t.Helper()
	f := forged{mediaType: ocispec.MediaTypeImageManifest, blobs: map[digest.Digest][]byte{}}
	diffIDs, layers := []any{}, []any{}
	for _, name := range names {
		plain, packed := layerTar(t, name, level)
		f.blobs[digest.FromBytes(packed)] = packed
		diffIDs = append(diffIDs, digest.FromBytes(plain).String())
		layers = append(layers, map[string]any{
			"mediaType": ocispec.MediaTypeImageLayerGzip, "digest": digest.FromBytes(packed).String(), "size": len(packed),
		})
	}
	config := map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}}
	manifest := map[string]any{"schemaVersion": 2, "mediaType": f.mediaType, "layers": layers}
	if change != nil {
		change(config, manifest)
	}
	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	f.blobs[digest.FromBytes(data)] = data
	if _, ok := manifest["config"]; !ok {
		manifest["config"] = map[string]any{"mediaType": ocispec.MediaTypeImageConfig, "digest": digest.FromBytes(data).String(), "size": len(data)}
	}
	if f.manifest, err = json.Marshal(manifest); err != nil {
		t.Fatal(err)
	}
	return f
}

// serveForged starts a registry with one repository, which has images under their tags.
func serveForged(t *testing.T, images map[string]forged) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, last, _ := strings.Cut(r.URL.Path, "/v2/img/")
		kind, name, _ := strings.Cut(last, "/")
		for tag, f := range images {
			if kind == "manifests" && (name == tag || name == f.digest().String()) {
				w.Header().Set("Content-Type", f.mediaType)
				_, _ = w.Write(f.manifest)
				return
			}
			if data, ok := f.blobs[digest.Digest(name)]; ok && kind == "blobs" {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				_, _ = w.Write(data)
				return
			}
		}
		if r.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://") + "/img"
}

func setDiffIDs(ids any) func(config, manifest map[string]any) {
	return func(config, _ map[string]any) { config["rootfs"] = map[string]any{"type": "layers", "diff_ids": ids} }
}

func setConfig(desc any) func(config, manifest map[string]any) {
	return func(_, manifest map[string]any) { manifest["config"] = desc }
}

func setLayer(key string, value any) func(config, manifest map[string]any) {
	return func(_, manifest map[string]any) { manifest["layers"].([]any)[1].(map[string]any)[key] = value } //nolint:forcetypeassert // as forge made it
}

const schema1 = `{"schemaVersion":1,"name":"img","tag":"x","architecture":"amd64",
"fsLayers":[{"blobSum":"sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"}],
"history":[{"v1Compatibility":"{\"id\":\"e45a5af57b00862e5ef5782a9925979a02ba2b12dff832fd0991335f4a11e5c5\",\"os\":\"linux\",\"architecture\":\"amd64\"}"}]}`

// An image whose parts contradict each other is refused with a clear error. This happens
// before it has a name and before a step could be built on it.
func TestImagesThatLie(t *testing.T) {
	one, two := []string{"one"}, []string{"one", "two"}
	other := digest.FromString("other").String()
	diffID := func(name string) string {
		plain, _ := layerTar(t, name, 6)
		return digest.FromBytes(plain).String()
	}
	raw := func(mediaType, data string) forged { return forged{mediaType: mediaType, manifest: []byte(data)} }
	tests := map[string]struct {
		image forged
		want  string
		// late is true for errors that are found only when the layers are unpacked.
		late bool
	}{
		"more diff_ids":         {forge(t, 6, one, setDiffIDs([]string{diffID("one"), diffID("two")})), "the manifest has 1 layers and the config names 2", false},
		"fewer diff_ids":        {forge(t, 6, two, setDiffIDs([]string{diffID("one")})), "the manifest has 2 layers and the config names 1", false},
		"other diff_ids":        {forge(t, 6, two, setDiffIDs([]string{diffID("one"), other})), "does not match the config's diffID " + other, true},
		"no diff_ids":           {forge(t, 6, two, setDiffIDs([]string{})), "the manifest has 2 layers and the config names 0", false},
		"null diff_ids":         {forge(t, 6, two, setDiffIDs(nil)), "the manifest has 2 layers and the config names 0", false},
		"empty diff_ids":        {forge(t, 6, two, setDiffIDs([]string{"", ""})), `diff_ids: layer 0: digest ""`, false},
		"malformed diff_ids":    {forge(t, 6, two, setDiffIDs([]string{"nocolon", "sha256:../../x"})), `digest "nocolon"`, false},
		"sha512 diff_ids":       {forge(t, 6, one, setDiffIDs([]string{digest.SHA512.FromString("x").String()})), "unsupported digest", false},
		"no rootfs":             {forge(t, 6, two, func(c, _ map[string]any) { delete(c, "rootfs") }), "the config names 0", false},
		"config without digest": {forge(t, 6, two, setConfig(map[string]any{"mediaType": ocispec.MediaTypeImageConfig, "size": 2})), `config: digest ""`, false},
		"config nocolon":        {forge(t, 6, two, setConfig(map[string]any{"digest": "nocolon", "size": 2})), `config: digest "nocolon"`, false},
		"config sha512":         {forge(t, 6, two, setConfig(map[string]any{"digest": digest.SHA512.FromString("x"), "size": 2})), "unsupported digest", false},
		"config of -1 bytes":    {forge(t, 6, two, setConfig(map[string]any{"digest": other, "size": -1})), "it has -1 bytes", false},
		"layer nocolon":         {forge(t, 6, two, setLayer("digest", "nocolon")), `layer 1: digest "nocolon"`, false},
		"layer without digest":  {forge(t, 6, two, setLayer("digest", "")), `layer 1: digest ""`, false},
		"layer of -1 bytes":     {forge(t, 6, two, setLayer("size", -1)), "has -1 bytes", false},
		"layer of another type": {forge(t, 6, two, setLayer("mediaType", "application/x-tar")), `the type "application/x-tar"`, false},
		"501 layers":            {forge(t, 1, slices.Repeat(one, 501), nil), "too many layers: the image has 501", false},
		"schema 1":              {raw("application/vnd.docker.distribution.manifest.v1+json", schema1), "schema 1 are not supported", false},
		"schema 1 unnamed":      {raw("application/json", schema1), "schema 1 are not supported", false},
		"null":                  {raw(ocispec.MediaTypeImageManifest, "null"), "config: digest", false},
		"nothing":               {raw(ocispec.MediaTypeImageManifest, "{}"), "config: digest", false},
		"index of nothing":      {raw(ocispec.MediaTypeImageIndex, `{"schemaVersion":2,"manifests":[{"digest":"nocolon","size":2,"platform":{"os":"linux","architecture":"amd64"}}]}`), "invalid checksum digest", false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			c := client(t, s, nil)
			ref := serveForged(t, map[string]forged{"x": test.image}) + ":x"
			if _, err := c.Resolve(t.Context(), ref, amd64); (err == nil) != test.late || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("resolve: %v, want %q", err, test.want)
			}
			if img, err := c.Pull(t.Context(), ref, registry.PullOptions{Platform: amd64}); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("pull: %+v, %v, want %q", img, err, test.want)
			}
			if images, err := s.Images(); err != nil || len(images) > 0 {
				t.Errorf("the store has %+v, %v", images, err)
			}
		})
	}
}

// Layers are fetched only from the image's registry. The URLs in their descriptors are
// not used, whatever the type of the layers.
func TestLayersOfOtherHosts(t *testing.T) {
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(other.Close)
	types := map[string]string{
		"usual":                ocispec.MediaTypeImageLayerGzip,
		"not for distribution": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
		"docker's foreign":     "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	}
	for name, mediaType := range types {
		for _, has := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s here %t", name, has), func(t *testing.T) {
				img := forge(t, 6, []string{"one", "two"}, func(c, m map[string]any) {
					setLayer("mediaType", mediaType)(c, m)
					setLayer("urls", []string{other.URL + "/blob"})(c, m)
				})
				if !has {
					_, packed := layerTar(t, "two", 6)
					delete(img.blobs, digest.FromBytes(packed))
				}
				s := storetest.Open(t, storetest.NewRoots(t))
				got, err := client(t, s, nil).Pull(t.Context(), serveForged(t, map[string]forged{"x": img})+":x", registry.PullOptions{Platform: amd64})
				if (err == nil) != has {
					t.Errorf("pull: %+v, %v", got, err)
				}
				if n := asked.Load(); n > 0 {
					t.Errorf("the other host was asked %d times", n)
				}
			})
		}
	}
}

// Two images may have the same config but other blobs. So an attacker could combine the
// config of a well-known image with other blobs.
func TestPullOtherBlobsOfAConfig(t *testing.T) {
	legit, again := forge(t, 6, []string{"one", "two"}, nil), forge(t, 1, []string{"one", "two"}, nil)
	ids := []digest.Digest{}
	for _, name := range []string{"one", "two"} {
		plain, _ := layerTar(t, name, 6)
		ids = append(ids, digest.FromBytes(plain))
	}
	evil := forge(t, 6, []string{"one", "evil"}, setDiffIDs(ids))
	ref := serveForged(t, map[string]forged{"legit": legit, "again": again, "evil": evil})
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	pull := func(tag string) (storage.Image, error) {
		return c.Pull(t.Context(), ref+tag, registry.PullOptions{Platform: amd64})
	}
	first, err := pull(":legit")
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{":evil", "@" + evil.digest().String()} {
		if img, err := pull(tag); err == nil || !strings.Contains(err.Error(), "does not match the config's diffID") {
			t.Errorf("%s: pulled %+v, %v", tag, img, err)
		}
		if img, err := s.Image(ref + tag); !errors.Is(err, storage.ErrImageUnknown) {
			t.Errorf("%s: the store has %+v, %v", tag, img, err)
		}
	}
	if img, err := s.Image(ref + ":legit"); err != nil || img.Digest != legit.digest() {
		t.Errorf("after that %+v, %v", img, err)
	}
	// This image has the same layers with another compression.
	if img, err := pull("@" + again.digest().String()); err != nil || img.ID != first.ID {
		t.Errorf("pulled %+v, %v, want %s", img, err, first.ID)
	}
	if layers, err := s.Layers(); err != nil || len(layers) != 2 {
		t.Errorf("%d layers, %v, want 2", len(layers), err)
	}
	// Holds accepts only the blobs that contain the layer.
	for _, test := range []struct {
		image forged
		want  bool
	}{{legit, true}, {again, true}, {evil, false}} {
		var m ocispec.Manifest
		if err := json.Unmarshal(test.image.manifest, &m); err != nil {
			t.Fatal(err)
		}
		if err := c.Holds(t.Context(), ref+"@"+test.image.digest().String(), m.Layers[1], ids[1]); (err == nil) != test.want {
			t.Errorf("blob %s: %v, want %v", m.Layers[1].Digest, err, test.want)
		}
	}
}

// archiveOf returns an OCI archive whose index has the entries.
func archiveOf(t *testing.T, f forged, entries ...ocispec.Descriptor) []byte {
	t.Helper()
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": entries})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "blobs/sha256/" + f.digest().Encoded(): f.manifest}
	for d, data := range f.blobs {
		files["blobs/sha256/"+d.Encoded()] = data
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for name, data := range files {
		if err := tw.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// A name with a digest belongs to the image with that digest. An archive or another tool
// cannot change that.
func TestLoadTakesNoDigest(t *testing.T) {
	f := forge(t, 6, []string{"evil"}, nil)
	wellKnown := digest.FromString("the real one")
	entry := func(dgst digest.Digest, name string) ocispec.Descriptor {
		return ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageManifest, Digest: dgst, Size: int64(len(f.manifest)), Annotations: map[string]string{"io.containerd.image.name": name},
		}
	}
	pinned := "registry.test/busybox@" + wellKnown.String()
	for name, entries := range map[string][]ocispec.Descriptor{
		"alone":     {entry(f.digest(), pinned)},
		"second":    {entry(f.digest(), "docker.io/library/innocent:1"), entry(f.digest(), pinned)},
		"with tag":  {entry(f.digest(), "registry.test/busybox:1@"+wellKnown.String())},
		"own blobs": {entry(f.digest(), pinned), entry(f.digest(), "registry.test/busybox:1")},
	} {
		t.Run(name, func(t *testing.T) {
			s := storetest.Open(t, storetest.NewRoots(t))
			c := client(t, s, nil)
			if images, err := c.Load(t.Context(), bytes.NewReader(archiveOf(t, f, entries...)), registry.PullOptions{Platform: amd64}); !errors.Is(err, storage.ErrOtherDigest) {
				t.Errorf("loaded %+v, %v, want ErrOtherDigest", images, err)
			}
			if img, err := s.Image(pinned); !errors.Is(err, storage.ErrImageUnknown) {
				t.Errorf("%s is %+v, %v", pinned, img, err)
			}
		})
	}
	t.Run("own digest", func(t *testing.T) {
		s := storetest.Open(t, storetest.NewRoots(t))
		own := "registry.test/busybox@" + f.digest().String()
		images, err := client(t, s, nil).Load(t.Context(), bytes.NewReader(archiveOf(t, f, entry(f.digest(), own))), registry.PullOptions{Platform: amd64})
		if err != nil || len(images) != 1 || !slices.Equal(images[0].Names, []string{own}) {
			t.Fatalf("loaded %+v, %v", images, err)
		}
		// Another tool may have given that name to an image.
		if err := s.Library().AddNames(images[0].ID, []string{pinned}); err != nil {
			t.Fatal(err)
		}
		if img, err := s.Image(pinned); !errors.Is(err, storage.ErrImageUnknown) {
			t.Errorf("%s is %+v, %v", pinned, img, err)
		}
		if img, err := s.Image(own); err != nil || img.ID != images[0].ID {
			t.Errorf("%s is %+v, %v", own, img, err)
		}
	})
}

// The manifest of a layout is verified against its digest, as other blobs are.
func TestLayoutWithSwappedManifest(t *testing.T) {
	good, evil := forge(t, 6, []string{"good"}, nil), forge(t, 6, []string{"evil"}, nil)
	dir := t.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`),
		"index.json": fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, good.mediaType, good.digest(), len(evil.manifest)),
		filepath.Join("blobs", "sha256", good.digest().Encoded()): evil.manifest,
	}
	for d, data := range evil.blobs {
		files[filepath.Join("blobs", "sha256", d.Encoded())] = data
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := storetest.Open(t, storetest.NewRoots(t))
	c := client(t, s, nil)
	for _, where := range []string{dir, dir + "@" + good.digest().String()} {
		if res, err := c.ResolveLayout(t.Context(), where, amd64); err == nil || !strings.Contains(err.Error(), "another digest") {
			t.Errorf("resolve %s: %+v, %v", where, res, err)
		}
		if img, err := c.PullLayout(t.Context(), where, registry.PullOptions{Platform: amd64}); err == nil || !strings.Contains(err.Error(), "another digest") {
			t.Errorf("pull %s: %+v, %v", where, img, err)
		}
		if a, err := c.OpenArtifactLayout(t.Context(), where, amd64); err == nil || !strings.Contains(err.Error(), "another digest") {
			t.Errorf("open %s: %+v, %v", where, a, err)
		}
	}
}

// If a file of a layout is a FIFO, shale does not wait for it.
func TestLayoutOfFIFOs(t *testing.T) {
	good := forge(t, 6, []string{"good"}, nil)
	blob := func(d digest.Digest) string { return filepath.Join("blobs", "sha256", d.Encoded()) }
	for _, fifo := range append([]string{"index.json", "oci-layout", blob(good.digest())}, slices.Collect(func(yield func(string) bool) {
		for d := range good.blobs {
			if !yield(blob(d)) {
				return
			}
		}
	})...) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{
			"oci-layout":        []byte(`{"imageLayoutVersion":"1.0.0"}`),
			"index.json":        fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"mediaType":%q,"digest":%q,"size":%d}]}`, good.mediaType, good.digest(), len(good.manifest)),
			blob(good.digest()): good.manifest,
		}
		for d, data := range good.blobs {
			files[blob(d)] = data
		}
		for name, data := range files {
			err := os.WriteFile(filepath.Join(dir, name), data, 0o600)
			if name == fifo {
				err = errors.Join(os.Remove(filepath.Join(dir, name)), unix.Mkfifo(filepath.Join(dir, name), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		c := client(t, storetest.Open(t, storetest.NewRoots(t)), nil)
		if img, err := c.PullLayout(t.Context(), dir, registry.PullOptions{Platform: amd64}); err == nil || !strings.Contains(err.Error(), fifo+" is not a file") {
			t.Errorf("%s: %+v, %v", fifo, img, err)
		}
	}
}
