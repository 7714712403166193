package conformance

import (
	"archive/tar"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layout is an OCI layout, in memory or in a directory.
type layout struct {
	dir   string
	files map[string][]byte
}

func (l *layout) read(name string) ([]byte, error) {
	if l.files == nil {
		return os.ReadFile(filepath.Join(l.dir, name))
	}
	data, ok := l.files[name]
	if !ok {
		return nil, fmt.Errorf("layout has no %s", name)
	}
	return data, nil
}

// blob reads a blob and verifies its size and digest.
func (l *layout) blob(desc ocispec.Descriptor) ([]byte, error) {
	data, err := l.read(path.Join("blobs", desc.Digest.Algorithm().String(), desc.Digest.Encoded()))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) != desc.Size || desc.Digest.Algorithm().FromBytes(data) != desc.Digest {
		return nil, fmt.Errorf("%s is not what its descriptor says", desc.Digest)
	}
	return data, nil
}

func (l *layout) json(desc ocispec.Descriptor, into any) error {
	data, err := l.blob(desc)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// layoutFromTar reads a layout from a tar archive.
func layoutFromTar(r io.Reader) (*layout, error) {
	l := &layout{files: map[string][]byte{}}
	reader := tar.NewReader(r)
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return l, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read layout: %w", err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if l.files[path.Clean(header.Name)], err = io.ReadAll(reader); err != nil {
			return nil, fmt.Errorf("read layout: %w", err)
		}
	}
}

// Digests returns the digests of the base images by name.
func (b *Bases) Digests() map[string]string { return b.digests }

// Bases are the base images of the test bed. Expected results do not include their
// content, because it depends on the release of Debian.
type Bases struct {
	images  []*base
	digests map[string]string
}

type base struct {
	name    string
	layout  *layout
	diffIDs []digest.Digest
	layers  []ocispec.Descriptor
	config  map[string]any
	history int

	once sync.Once
	flat *flattener
	err  error
}

// LoadBases reads the layouts in dir, the output directory of "testbed images".
func LoadBases(dir string) (*Bases, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*", "index.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no image in %q", dir)
	}
	bases := &Bases{digests: map[string]string{}}
	for _, file := range files {
		l := &layout{dir: filepath.Dir(file)}
		name := filepath.Base(l.dir)
		index, err := l.index()
		if err != nil {
			return nil, fmt.Errorf("read base image %s: %w", l.dir, err)
		}
		bases.digests[name] = index.Manifests[0].Digest.String()
		found, err := l.below(index)
		if err != nil {
			return nil, fmt.Errorf("read base image %s: %w", l.dir, err)
		}
		for _, i := range found {
			bases.images = append(bases.images, &base{
				name: name, layout: l,
				diffIDs: i.config.RootFS.DiffIDs, layers: i.manifest.Layers, config: i.raw, history: len(i.config.History),
			})
		}
	}
	// Sort the longest first, for find. Then sort by name, because some have the same
	// layers.
	slices.SortStableFunc(bases.images, func(a, b *base) int {
		return cmp.Or(cmp.Compare(len(b.diffIDs), len(a.diffIDs)), cmp.Compare(a.name, b.name))
	})
	return bases, nil
}

func (b *Bases) find(diffIDs []digest.Digest) *base {
	for _, image := range b.images {
		if len(diffIDs) >= len(image.diffIDs) && slices.Equal(diffIDs[:len(image.diffIDs)], image.diffIDs) {
			return image
		}
	}
	return nil
}

// flattened returns the base's file system. It is computed in the first call.
func (b *base) flattened() (*flattener, error) {
	b.once.Do(func() {
		b.flat = &flattener{tree: tree{}, show: showContent}
		for _, desc := range b.layers {
			if _, b.err = b.flat.applyBlob(b.layout, desc, ""); b.err != nil {
				return
			}
		}
	})
	return b.flat, b.err
}

// found is an image in a layout.
type found struct {
	desc     ocispec.Descriptor
	manifest ocispec.Manifest
	config   ocispec.Image
	raw      map[string]any // the whole config
}

// images returns all images of a layout, in its order.
func (l *layout) images() ([]found, error) {
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	return l.below(index)
}

func (l *layout) index() (index ocispec.Index, err error) {
	data, err := l.read("index.json")
	if err != nil {
		return index, err
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return index, fmt.Errorf("read index.json: %w", err)
	}
	return index, nil
}

func (l *layout) below(index ocispec.Index) ([]found, error) {
	var images []found
	for _, desc := range index.Manifests {
		if isIndex(desc.MediaType) {
			var nested ocispec.Index
			if err := l.json(desc, &nested); err != nil {
				return nil, err
			}
			more, err := l.below(nested)
			if err != nil {
				return nil, err
			}
			images = append(images, more...)
			continue
		}
		f := found{desc: desc}
		if err := errors.Join(l.json(desc, &f.manifest)); err != nil {
			return nil, err
		}
		if err := errors.Join(l.json(f.manifest.Config, &f.config), l.json(f.manifest.Config, &f.raw)); err != nil {
			return nil, err
		}
		images = append(images, f)
	}
	return images, nil
}

func isIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == "application/vnd.docker.distribution.manifest.list.v2+json"
}

// applyBlob applies a layer. If diffID is not "", the uncompressed layer must have this
// digest.
func (f *flattener) applyBlob(l *layout, desc ocispec.Descriptor, diffID digest.Digest) ([]string, error) {
	data, err := l.blob(desc)
	if err != nil {
		return nil, err
	}
	plain, err := decompressed(data)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	sum := digest.SHA256.Digester()
	listed, err := f.apply(io.TeeReader(plain, sum.Hash()))
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(sum.Hash(), plain); err != nil {
		return nil, err
	}
	if diffID != "" && sum.Digest() != diffID {
		return nil, fmt.Errorf("layer %s: its diffID is %s, the config says %s", desc.Digest, sum.Digest(), diffID)
	}
	return listed, nil
}

func decompressed(data []byte) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0x1f, 0x8b}):
		return gzip.NewReader(bytes.NewReader(data))
	case bytes.HasPrefix(data, []byte{0x28, 0xb5, 0x2f, 0xfd}), bytes.HasPrefix(data, []byte{0x50, 0x2a, 0x4d, 0x18}):
		decoder, err := zstd.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return decoder.IOReadCloser(), nil
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// describeImage returns the properties of an image that are compared. It returns an error
// if the numbers of layers, diffIDs and history entries do not agree.
func (r *recorder) describeImage(l *layout, f found) (Image, error) {
	diffIDs := f.config.RootFS.DiffIDs
	if len(diffIDs) != len(f.manifest.Layers) {
		return Image{}, fmt.Errorf("%d layers, %d diffIDs", len(f.manifest.Layers), len(diffIDs))
	}
	image := Image{Platform: r.platform(f), Tree: map[string]string{}}
	flat, below := &flattener{tree: tree{}}, tree{}
	config := r.config(f.raw)
	ours := 0
	history := f.config.History
	if base := r.bases.find(diffIDs); base != nil {
		shared, err := base.flattened()
		if err != nil {
			return Image{}, err
		}
		flat, below, ours, image.Base = shared.clone(), shared.tree, len(base.diffIDs), base.name
		history = history[min(base.history, len(history)):]
		config = changedConfig(r.config(base.config), config)
	}
	flat.show = r.show
	for i := ours; i < len(diffIDs); i++ {
		listed, err := flat.applyBlob(l, f.manifest.Layers[i], diffIDs[i])
		if err != nil {
			return Image{}, err
		}
		if r.c.Layers {
			slices.Sort(listed)
			image.Layers = append(image.Layers, r.texts(listed))
		}
	}
	image.Count = len(diffIDs) - ours
	image.Tree = changes(below.describe(r.timed), flat.tree.describe(r.timed))
	for _, h := range history {
		image.History = append(image.History, r.history(h))
	}
	full := 0
	for _, h := range f.config.History {
		if !h.EmptyLayer {
			full++
		}
	}
	if full != len(diffIDs) {
		return Image{}, fmt.Errorf("%d layers, %d in the history", len(diffIDs), full)
	}
	if r.c.Times && f.config.Created != nil {
		image.Created = f.config.Created.UTC().Format("2006-01-02T15:04:05.999999999Z")
	}
	image.Config = config
	if r.c.Manifest {
		image.Manifest = r.manifest(f)
	}
	return image, nil
}

// changes returns the lines that differ in after. Names that are only in before have the
// value "gone".
func changes(before, after map[string]string) map[string]string {
	changed := map[string]string{}
	for name, line := range after {
		if before[name] != line {
			changed[name] = line
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			changed[name] = "gone"
		}
	}
	// If a directory is gone, do not list its files.
	for name := range changed {
		if changed[name] == "gone" && changed[path.Dir(name)] == "gone" {
			delete(changed, name)
		}
	}
	return changed
}

func (r *recorder) history(h ocispec.History) string {
	line := r.text(h.CreatedBy)
	if h.Comment == "buildkit.exporter.image.v0" {
		line = "" // a layer without history: the builder chose this text
	}
	if h.Comment != "buildkit.dockerfile.v0" {
		line += fmt.Sprintf(" [comment %q]", h.Comment)
	}
	if h.Author != "" {
		line += fmt.Sprintf(" [author %q]", h.Author)
	}
	if h.EmptyLayer {
		line += " [empty]"
	}
	if r.c.Times && h.Created != nil {
		line += " [created " + h.Created.UTC().Format("2006-01-02T15:04:05.999999999Z") + "]"
	}
	return line
}

// config returns an image's config without the parts that are compared separately.
func (r *recorder) config(raw map[string]any) map[string]any {
	config := map[string]any{}
	for key, value := range raw {
		switch key {
		case "created", "history", "rootfs":
		case "architecture":
			if value == r.arch {
				value = "@ARCH@"
			}
			config[key] = value
		default:
			config[key] = r.value(value)
		}
	}
	return config
}

// changedConfig returns the values of a config that differ from those of its base.
func changedConfig(before, after map[string]any) map[string]any {
	changed := map[string]any{}
	for key, value := range after {
		old, nested := before[key].(map[string]any)
		if now, ok := value.(map[string]any); ok && nested {
			if inner := changedConfig(old, now); len(inner) > 0 {
				changed[key] = inner
			}
			continue
		}
		if !reflect.DeepEqual(before[key], value) {
			changed[key] = value
		}
	}
	for key := range before {
		if _, ok := after[key]; !ok {
			changed[key] = "gone"
		}
	}
	return changed
}

// value normalizes the strings in a JSON value.
func (r *recorder) value(v any) any {
	switch v := v.(type) {
	case string:
		return r.text(v)
	case []any:
		for i := range v {
			v[i] = r.value(v[i])
		}
	case map[string]any:
		normal := map[string]any{}
		for key, value := range v {
			normal[r.text(key)] = r.value(value)
		}
		return normal
	}
	return v
}

func (r *recorder) platform(f found) string {
	p := []string{f.config.OS, f.config.Architecture}
	if f.config.Variant != "" {
		p = append(p, f.config.Variant)
	}
	if p[1] == r.arch {
		p[1] = "@ARCH@"
	}
	return strings.Join(p, "/")
}

func (r *recorder) manifest(f found) *Manifest {
	m := &Manifest{
		MediaType: f.manifest.MediaType, Config: f.manifest.Config.MediaType,
		Annotations: r.annotations(f.manifest.Annotations), Descriptor: r.annotations(f.desc.Annotations),
	}
	for _, layer := range f.manifest.Layers {
		m.Layers = append(m.Layers, layer.MediaType)
	}
	return m
}

// annotations normalizes annotations. It omits the time of the build, unless Case.Times
// is set.
func (r *recorder) annotations(all map[string]string) map[string]string {
	kept := map[string]string{}
	for key, value := range all {
		if key == ocispec.AnnotationCreated && !r.c.Times {
			continue
		}
		kept[key] = r.text(value)
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}

func (r *recorder) describeIndex(l *layout) (*Manifest, error) {
	data, err := l.read("index.json")
	if err != nil {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, err
	}
	m := &Manifest{MediaType: index.MediaType, Annotations: r.annotations(index.Annotations)}
	for _, desc := range index.Manifests {
		line := desc.MediaType
		if p := desc.Platform; p != nil {
			line += fmt.Sprintf(" %s/%s", p.OS, p.Architecture)
			if p.Variant != "" {
				line += "/" + p.Variant
			}
		}
		m.Manifests = append(m.Manifests, line+quoted(r.annotations(desc.Annotations)))
	}
	return m, nil
}
