package export_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/storage"
)

var contents = map[string]string{"one": strings.Repeat("first layer ", 1000), "two": "second layer"}

func testImage() export.Image {
	img := export.Image{
		Config:   []byte(`{"os":"linux"}`),
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Created:  time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC),
		Names:    []string{"docker.io/library/app:latest", "docker.io/library/app:1"},
	}
	for _, id := range []string{"one", "two"} {
		img.Layers = append(img.Layers, storage.Layer{
			ID: id, DiffID: digest.FromString(contents[id]), Size: int64(len(contents[id])),
		})
	}
	return img
}

func openLayer(id string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(contents[id])), nil
}

func readTar(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[h.Name]; twice {
			t.Errorf("%s is in the archive twice", h.Name)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = data
	}
}

func unmarshal[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}

func blob(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func decompress(t *testing.T, mediaType string, data []byte) string {
	t.Helper()
	var r io.Reader = bytes.NewReader(data)
	var err error
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		r, err = gzip.NewReader(r)
	case strings.HasSuffix(mediaType, "zstd"):
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// checkLayout follows every digest from index.json down.
func checkLayout(t *testing.T, files map[string][]byte, img export.Image, desc ocispec.Descriptor) ocispec.Manifest {
	t.Helper()
	for name, data := range files {
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && hex != "" && digest.FromBytes(data).Encoded() != hex {
			t.Errorf("%s does not have its digest", name)
		}
	}
	index := unmarshal[ocispec.Index](t, files["index.json"])
	var names []string
	for _, m := range index.Manifests {
		names = append(names, m.Annotations["io.containerd.image.name"]+" "+m.Annotations[ocispec.AnnotationRefName])
		if m.Digest != desc.Digest || m.Annotations[ocispec.AnnotationCreated] != "2020-01-02T03:04:05Z" {
			t.Errorf("index entry %+v is not of %s", m, desc.Digest)
		}
	}
	if diff := cmp.Diff([]string{"docker.io/library/app:latest latest", "docker.io/library/app:1 1"}, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	m := unmarshal[ocispec.Manifest](t, files[blob(desc.Digest)])
	if !bytes.Equal(files[blob(m.Config.Digest)], img.Config) {
		t.Error("the config is not the image's")
	}
	for i, l := range m.Layers {
		if got := decompress(t, l.MediaType, files[blob(l.Digest)]); got != contents[img.Layers[i].ID] {
			t.Errorf("layer %d holds %.20q", i, got)
		}
	}
	return m
}

func TestArchive(t *testing.T) {
	level := 9
	tests := []struct {
		name   string
		opts   export.ArchiveOptions
		types  []string
		docker bool
	}{
		{
			name: "oci", opts: export.ArchiveOptions{Compression: export.Compression{Type: export.Gzip}},
			types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip},
		},
		{
			name: "oci zstd", opts: export.ArchiveOptions{Compression: export.Compression{Type: export.Zstd, Level: &level}},
			types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
		},
		{
			name: "docker", opts: export.ArchiveOptions{Docker: true, Compression: export.Compression{Type: export.Gzip}},
			types:  []string{"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"},
			docker: true,
		},
		{
			name: "docker uncompressed", opts: export.ArchiveOptions{Docker: true, Compression: export.Compression{Type: export.Uncompressed}},
			types:  []string{"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.image.rootfs.diff.tar"},
			docker: true,
		},
		{
			name: "docker with oci types", opts: export.ArchiveOptions{Docker: true, OCITypes: true, Compression: export.Compression{Type: export.Uncompressed}},
			types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer}, docker: true,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			temp := t.TempDir()
			test.opts.Open, test.opts.TempDir = openLayer, temp
			var buf bytes.Buffer
			img := testImage()
			desc, err := export.Archive(t.Context(), &buf, img, test.opts)
			if err != nil {
				t.Fatal(err)
			}
			files := readTar(t, &buf)
			m := checkLayout(t, files, img, desc)
			if diff := cmp.Diff(test.types, []string{m.MediaType, m.Layers[0].MediaType}); diff != "" {
				t.Errorf("media types (-want +got):\n%s", diff)
			}
			_, ok := files["manifest.json"]
			if ok != test.docker {
				t.Errorf("manifest.json is there: %v", ok)
			}
			if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
				t.Errorf("left in the temporary directory: %v, %v", left, err)
			}
		})
	}
}

func TestDockerManifest(t *testing.T) {
	var buf bytes.Buffer
	img := testImage()
	opts := export.ArchiveOptions{Docker: true, Compression: export.Compression{Type: export.Uncompressed}, Open: openLayer}
	if _, err := export.Archive(t.Context(), &buf, img, opts); err != nil {
		t.Fatal(err)
	}
	got := unmarshal[[]map[string]any](t, readTar(t, &buf)["manifest.json"])
	want := []map[string]any{{
		"Config":   blob(digest.FromBytes(img.Config)),
		"RepoTags": []any{"app:latest", "app:1"},
		"Layers":   []any{blob(img.Layers[0].DiffID), blob(img.Layers[1].DiffID)},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("manifest.json (-want +got):\n%s", diff)
	}
}

func TestLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "layout")
	img := testImage()
	opts := export.ArchiveOptions{Compression: export.Compression{Type: export.Gzip}, Open: openLayer, TempDir: t.TempDir()}
	var desc ocispec.Descriptor
	for range 2 { // a second time over the first
		var err error
		if desc, err = export.Layout(t.Context(), dir, img, opts); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{}
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files[path], err = fs.ReadFile(root, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	checkLayout(t, files, img, desc)
	for name := range files {
		if strings.HasSuffix(name, ".tmp") {
			t.Errorf("%s was left behind", name)
		}
	}
}

func TestArchiveIsReproducible(t *testing.T) {
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		opts := export.ArchiveOptions{Compression: export.Compression{Type: export.Gzip}, Open: openLayer, TempDir: t.TempDir()}
		if _, err := export.Archive(t.Context(), w, testImage(), opts); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of one image differ")
	}
}

func TestArchiveFails(t *testing.T) {
	boom := errors.New("boom")
	for name, open := range map[string]func(string) (io.ReadCloser, error){
		"at opening": func(string) (io.ReadCloser, error) { return nil, boom },
		"at reading": func(string) (io.ReadCloser, error) { return io.NopCloser(failing{boom}), nil },
	} {
		opts := export.ArchiveOptions{Compression: export.Compression{Type: export.Gzip}, Open: open, TempDir: t.TempDir()}
		if _, err := export.Archive(t.Context(), io.Discard, testImage(), opts); !errors.Is(err, boom) {
			t.Errorf("%s: error is %v, want %v", name, err, boom)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestParseCompression(t *testing.T) {
	for _, test := range []struct {
		attrs map[string]string
		want  string
		bad   bool
	}{
		{want: export.Gzip},
		{attrs: map[string]string{"compression": "zstd"}, want: export.Zstd},
		{attrs: map[string]string{"compression": "uncompressed"}, want: export.Uncompressed},
		{attrs: map[string]string{"compression": "xz"}, bad: true},
		{attrs: map[string]string{"compression-level": "high"}, bad: true},
	} {
		got, err := export.ParseCompression(test.attrs)
		if (err != nil) != test.bad || !test.bad && got.Type != test.want {
			t.Errorf("%v: %+v, %v", test.attrs, got, err)
		}
	}
}
