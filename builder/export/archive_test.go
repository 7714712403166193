package export

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
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

	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
)

// layerTar returns a layer with one file of that name, content and time.
func layerTar(t *testing.T, name, content string, at time.Time) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	h := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o640, Uid: 7, ModTime: at,
		PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"},
	}
	if err := tw.WriteHeader(h); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tw, content); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// testBuild returns a build with a common base layer and one own layer for each platform.
func testBuild(t *testing.T, ids ...string) (Build, *Layers) {
	t.Helper()
	contents := map[string][]byte{"base": layerTar(t, "base", strings.Repeat("first layer ", 1000), ran)}
	base := storage.Layer{ID: "base", DiffID: digest.FromBytes(contents["base"]), Size: int64(len(contents["base"])), Created: early}
	b := Build{Multi: len(ids) > 1}
	for _, id := range ids {
		contents[id] = layerTar(t, "own", id, ran)
		own := storage.Layer{ID: id, DiffID: digest.FromBytes(contents[id]), Size: int64(len(contents[id])), Created: ran}
		b.Platforms = append(b.Platforms, Platform{
			ID: id, Platform: ocispec.Platform{OS: "linux", Architecture: strings.TrimPrefix(id, "linux/")},
			Config:     []byte(frontConfig),
			BaseConfig: []byte(`{"rootfs":{"diff_ids":["` + base.DiffID + `"]}}`),
			Layers:     []storage.Layer{base, own},
		})
	}
	open := func(id string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(contents[id])), nil }
	return b, &Layers{Maker: &blobs.Maker{Open: open, Memory: blobs.OpenMemory("")}}
}

func compose(t *testing.T, b Build, layers *Layers, attrs map[string]string) *Image {
	t.Helper()
	opts, rest, err := ParseImage(attrs, false)
	if err != nil || len(rest) != 0 {
		t.Fatalf("ParseImage(%v): left over %v, %v", attrs, rest, err)
	}
	img, err := Compose(t.Context(), b, opts, layers, blobs.Nowhere{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func archive(t *testing.T, img *Image, names []string, docker bool) map[string][]byte {
	t.Helper()
	var buf bytes.Buffer
	tarball, err := NewArchive(&buf, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(img.CopyTo(t.Context(), tarball), Archive(tarball, img, names, docker)); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	var order []string
	for tr := tar.NewReader(&buf); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		order = append(order, h.Name)
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	if order[0] != "blobs/" || order[len(order)-1] != "oci-layout" || len(files) != len(order) {
		t.Errorf("the files are not in order, each once: %q", order)
	}
	return files
}

func decompress(t *testing.T, mediaType string, data []byte) []byte {
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
	return out
}

func blob(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// checkManifest verifies all digests that a manifest refers to.
func checkManifest(t *testing.T, files map[string][]byte, desc ocispec.Descriptor) ocispec.Manifest {
	t.Helper()
	for name, data := range files {
		if hex, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && hex != "" && digest.FromBytes(data).Encoded() != hex {
			t.Errorf("%s does not have its digest", name)
		}
	}
	m := unmarshal[ocispec.Manifest](t, files[blob(desc.Digest)])
	config := unmarshal[ocispec.Image](t, files[blob(m.Config.Digest)])
	if len(config.RootFS.DiffIDs) != len(m.Layers) {
		t.Fatalf("%d diffIDs for %d layers", len(config.RootFS.DiffIDs), len(m.Layers))
	}
	for i, l := range m.Layers {
		data := files[blob(l.Digest)]
		if l.Size != int64(len(data)) {
			t.Errorf("layer %d has %d bytes, not %d", i, len(data), l.Size)
		}
		if got := digest.FromBytes(decompress(t, l.MediaType, data)); got != config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d is %s, the config says %s", i, got, config.RootFS.DiffIDs[i])
		}
	}
	return m
}

func TestArchive(t *testing.T) {
	tests := []struct {
		name   string
		attrs  map[string]string
		docker bool
		types  []string
	}{
		{name: "default", types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip}},
		{
			name: "zstd", attrs: map[string]string{"compression": "zstd", "compression-level": "9"},
			types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerZstd},
		},
		{
			name: "uncompressed", attrs: map[string]string{"compression": "uncompressed"},
			types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayer},
		},
		{
			name: "estargz", attrs: map[string]string{"compression": "estargz"},
			types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip},
		},
		{name: "docker archive", docker: true, types: []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageLayerGzip}},
		{
			name: "docker media types", attrs: map[string]string{"oci-mediatypes": "false"}, docker: true,
			types: []string{mediaTypeManifest2, mediaTypeLayer2Gzip},
		},
		{
			name: "docker media types with zstd", attrs: map[string]string{"oci-mediatypes": "false", "compression": "zstd"},
			types: []string{mediaTypeManifest2, mediaTypeLayer2Zstd},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b, layers := testBuild(t, "linux/amd64")
			img := compose(t, b, layers, test.attrs)
			files := archive(t, img, []string{"docker.io/library/app:latest", "docker.io/library/app:1"}, test.docker)
			index := unmarshal[ocispec.Index](t, files["index.json"])
			var names []string
			for _, m := range index.Manifests {
				names = append(names, m.Annotations["io.containerd.image.name"]+" "+m.Annotations[ocispec.AnnotationRefName])
				if m.Digest != img.Root.Digest || m.Annotations[ocispec.AnnotationCreated] != "2020-01-02T04:04:05Z" {
					t.Errorf("index entry %+v is not of %s", m, img.Root.Digest)
				}
			}
			if diff := cmp.Diff([]string{"docker.io/library/app:latest latest", "docker.io/library/app:1 1"}, names); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			m := checkManifest(t, files, img.Root)
			if diff := cmp.Diff(test.types, []string{m.MediaType, m.Layers[0].MediaType}); diff != "" {
				t.Errorf("media types (-want +got):\n%s", diff)
			}
			if toc := m.Layers[0].Annotations["containerd.io/snapshot/stargz/toc.digest"]; (toc != "") != (test.name == "estargz") {
				t.Errorf("the digest of a table of contents is %q", toc)
			}
			list, ok := files["manifest.json"]
			if ok != test.docker {
				t.Fatalf("manifest.json is there: %v", ok)
			}
			if !ok {
				return
			}
			want := []map[string]any{{
				"Config": blob(m.Config.Digest), "RepoTags": []any{"app:latest", "app:1"},
				"Layers": []any{blob(m.Layers[0].Digest), blob(m.Layers[1].Digest)},
			}}
			if diff := cmp.Diff(want, unmarshal[[]map[string]any](t, list)); diff != "" {
				t.Errorf("manifest.json (-want +got):\n%s", diff)
			}
		})
	}
}

func TestArchiveOfAnIndex(t *testing.T) {
	b, layers := testBuild(t, "linux/amd64", "linux/arm64")
	img := compose(t, b, layers, map[string]string{
		"annotation.all": "1", "annotation-manifest[linux/arm64].one": "2",
		"annotation-manifest-descriptor[linux/arm64].entry": "3", "annotation-index.list": "4", "annotation-index-descriptor.root": "5",
	})
	files := archive(t, img, []string{"docker.io/library/app:latest"}, false)
	root := unmarshal[ocispec.Index](t, files["index.json"]).Manifests
	if len(root) != 1 || root[0].MediaType != ocispec.MediaTypeImageIndex || root[0].Platform != nil || root[0].Annotations["root"] != "5" {
		t.Fatalf("index.json names %+v", root)
	}
	index := unmarshal[ocispec.Index](t, files[blob(root[0].Digest)])
	if index.Annotations["list"] != "4" {
		t.Errorf("annotations of the index: %v", index.Annotations)
	}
	var got []string
	for _, desc := range index.Manifests {
		m := checkManifest(t, files, desc)
		got = append(got, desc.Platform.Architecture+" all="+m.Annotations["all"]+" one="+m.Annotations["one"]+" entry="+desc.Annotations["entry"])
	}
	if diff := cmp.Diff([]string{"amd64 all=1 one= entry=", "arm64 all=1 one=2 entry=3"}, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	n := 0
	for name := range files {
		if len(name) > len("blobs/sha256/") {
			n++
		}
	}
	if n != 8 { // 3 layers, 2 configs, 2 manifests, the index
		t.Errorf("%d blobs, want 8: the base layer is there once", n)
	}
}

func TestComposeRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		platforms []string
		attrs     map[string]string
		want      string
	}{
		"index annotation of one image": {
			[]string{"linux/amd64"}, map[string]string{"annotation-index.a": "b"}, "index annotations not supported for single platform export",
		},
		"annotation of a platform that is not built": {
			[]string{"linux/amd64", "linux/arm64"}, map[string]string{"annotation[linux/s390x].a": "b"}, "invalid annotation: no platform linux/s390x found in source",
		},
		"annotations of an index docker has none of": {
			[]string{"linux/amd64", "linux/arm64"},
			map[string]string{"annotation-index.a": "b", "oci-mediatypes": "false"},
			`cannot export annotations with "oci-mediatypes=false"`,
		},
	} {
		b, layers := testBuild(t, test.platforms...)
		opts, _, err := ParseImage(test.attrs, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Compose(t.Context(), b, opts, layers, blobs.Nowhere{}, nil); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

func TestRewriteTimestamp(t *testing.T) {
	b, layers := testBuild(t, "linux/amd64")
	epoch := early
	b.Platforms[0].Epoch = &epoch
	img := compose(t, b, layers, map[string]string{"rewrite-timestamp": "true", "compression": "uncompressed"})
	files := archive(t, img, nil, false)
	m := checkManifest(t, files, img.Root)
	for i, want := range []time.Time{ran, early} { // the time of the base is unchanged
		h, err := tar.NewReader(bytes.NewReader(files[blob(m.Layers[i].Digest)])).Next()
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(want) || h.Uid != 7 || h.PAXRecords["SCHILY.xattr.user.x"] != "y" {
			t.Errorf("layer %d: %+v, want the time %s", i, h, want)
		}
	}
}

func TestLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "layout")
	b, layers := testBuild(t, "linux/amd64")
	img := compose(t, b, layers, nil)
	for _, names := range [][]string{{"docker.io/library/app:1"}, {"docker.io/library/other:1"}, {"docker.io/library/app:1"}, nil, nil} {
		l, err := blobs.OpenLayout(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(img.CopyTo(t.Context(), l), Layout(t.Context(), l, img, names), l.Close()); err != nil {
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
	checkManifest(t, files, img.Root)
	var names []string
	for _, m := range unmarshal[ocispec.Index](t, files["index.json"]).Manifests {
		names = append(names, m.Annotations["io.containerd.image.name"]+" "+m.Annotations[ocispec.AnnotationRefName])
	}
	want := []string{"docker.io/library/other:1 1", "docker.io/library/app:1 1", " latest"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for name := range files {
		if strings.HasSuffix(name, ".tmp") || strings.HasSuffix(name, ".lock") {
			t.Errorf("%s was left behind", name)
		}
	}
}

func TestComposeIsReproducible(t *testing.T) {
	for _, compression := range []string{"gzip", "zstd", "estargz", "uncompressed"} {
		seen := map[digest.Digest]bool{}
		for range 2 {
			b, layers := testBuild(t, "linux/amd64", "linux/arm64")
			seen[compose(t, b, layers, map[string]string{"compression": compression}).Root.Digest] = true
		}
		if len(seen) != 1 {
			t.Errorf("%s: two images of one build differ", compression)
		}
	}
}

func TestComposeFails(t *testing.T) {
	boom := errors.New("boom")
	for name, open := range map[string]func(string) (io.ReadCloser, error){
		"at opening": func(string) (io.ReadCloser, error) { return nil, boom },
		"at reading": func(string) (io.ReadCloser, error) { return io.NopCloser(failing{boom}), nil },
	} {
		for _, attrs := range []map[string]string{nil, {"compression": "estargz"}, {"rewrite-timestamp": "1", "source-date-epoch": "1"}} {
			b, layers := testBuild(t, "linux/amd64")
			layers.Maker.Open = open
			opts, _, err := ParseImage(attrs, false)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			l, err := blobs.OpenLayout(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Compose(t.Context(), b, opts, layers, l, nil); !errors.Is(err, boom) {
				t.Errorf("%s, %v: error is %v, want %v", name, attrs, err, boom)
			}
			if left, err := filepath.Glob(dir + "/blobs/sha256/*"); err != nil || len(left) != 0 {
				t.Errorf("%s, %v: left over %v, %v", name, attrs, left, err)
			}
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestPublishedLayersOfTheBase(t *testing.T) {
	var buf bytes.Buffer
	zw := gzip.NewWriter(&buf) // this compressor differs from that of package blobs
	b, layers := testBuild(t, "linux/amd64")
	plain, err := layers.Maker.Open("base")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(zw, plain); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	base := b.Platforms[0].Layers[0].DiffID
	desc := ocispec.Descriptor{MediaType: mediaTypeLayer2Gzip, Digest: digest.FromBytes(buf.Bytes()), Size: int64(buf.Len())}
	tests := []struct {
		name  string
		attrs map[string]string
		sent  []byte
		want  bool // whether the published form is expected
	}{
		{name: "kept", sent: buf.Bytes(), want: true},
		{name: "kept beside others", attrs: map[string]string{"compression": "uncompressed"}, sent: buf.Bytes(), want: true},
		{name: "forced", attrs: map[string]string{"force-compression": "true"}, sent: buf.Bytes()},
		{name: "something else was sent", sent: []byte("something else")},
		{name: "cannot be fetched"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, layers := testBuild(t, "linux/amd64")
			layers.Origin = func(_ context.Context, diffID digest.Digest) (Origin, bool) {
				open := func(context.Context) (io.ReadCloser, error) {
					if test.sent == nil {
						return nil, errors.New("no registry")
					}
					return io.NopCloser(bytes.NewReader(test.sent)), nil
				}
				return Origin{Desc: desc, Open: open}, diffID == base
			}
			opts, _, err := ParseImage(test.attrs, false)
			if err != nil {
				t.Fatal(err)
			}
			opts.Complete = true
			// Use a layout, and a file from which half-written blobs are removed.
			for _, to := range []blobs.Sink{layout(t), tarFile(t)} {
				img, err := Compose(t.Context(), b, opts, layers, to, nil)
				if err != nil {
					t.Fatal(err)
				}
				if has, err := to.Has(t.Context(), img.Manifests[0].Layers[0].Desc); !has || err != nil {
					t.Errorf("%T has not got the base's layer: %v", to, err)
				}
			}
			img, err := Compose(t.Context(), b, opts, layers, layout(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			m := checkManifest(t, archive(t, img, nil, false), img.Root)
			if got := m.Layers[0].Digest == desc.Digest; got != test.want {
				t.Errorf("the base's layer is the published one: %v, want %v", got, test.want)
			}
			if m.Layers[1].Digest == desc.Digest {
				t.Error("the build's own layer is the base's")
			}
		})
	}
}

func layout(t *testing.T) *blobs.Layout {
	t.Helper()
	l, err := blobs.OpenLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func tarFile(t *testing.T) *blobs.Tar {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "archive.tar"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	tarball, err := NewArchive(f, "")
	if err != nil {
		t.Fatal(err)
	}
	return tarball
}

// The content of an archive does not depend on the destination or on remembered blobs.
func TestArchivesAreTheSame(t *testing.T) {
	b, layers := testBuild(t, "linux/amd64", "linux/arm64")
	opts, _, err := ParseImage(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	write := func(w io.Writer) {
		tarball, err := NewArchive(w, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		img, err := Compose(t.Context(), b, opts, layers, tarball, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := Archive(tarball, img, nil, false); err != nil {
			t.Fatal(err)
		}
	}
	var pipe bytes.Buffer
	write(&pipe)
	for range 2 {
		path := filepath.Join(t.TempDir(), "archive.tar")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		write(f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, pipe.Bytes()) {
			t.Errorf("the file has %d bytes, the pipe got %d others, %v", len(data), pipe.Len(), err)
		}
	}
}
