package export

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/storage"
)

// Image is what an archive holds.
type Image struct {
	Config   []byte
	Layers   []storage.Layer // base first
	Platform ocispec.Platform
	Created  time.Time
	// Names are complete: registry, repository and tag.
	Names []string
	// Annotations are put on an OCI manifest.
	Annotations map[string]string
}

// ArchiveOptions say what the archive looks like. The zero value is an OCI
// layout with gzip layers.
type ArchiveOptions struct {
	// Docker writes schema 2 media types and the manifest.json that
	// `docker load` reads, beside the OCI layout.
	Docker bool
	// OCITypes keeps OCI media types in a docker archive.
	OCITypes    bool
	Compression Compression
	// Open streams a layer's uncompressed tar.
	Open func(layer string) (io.ReadCloser, error)
	// TempDir holds one compressed layer at a time.
	TempDir string
}

// Names of the annotations by which containerd and docker find an image's name
// in an index.json.
const (
	annotationImageName = "io.containerd.image.name"
	mediaTypeManifest2  = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeConfig2    = "application/vnd.docker.container.image.v1+json"
)

// Archive writes img as a tar file to w and returns the manifest's descriptor.
func Archive(ctx context.Context, w io.Writer, img Image, opts ArchiveOptions) (ocispec.Descriptor, error) {
	out := &tarSink{tw: tar.NewWriter(w), seen: map[string]bool{}}
	desc, err := writeLayout(ctx, out, img, opts)
	if err != nil {
		return desc, err
	}
	if err := out.tw.Close(); err != nil {
		return desc, fmt.Errorf("finish archive: %w", err)
	}
	return desc, nil
}

// Layout writes img into a directory and returns the manifest's descriptor.
// Blobs that are there already are kept; index.json is replaced last.
func Layout(ctx context.Context, dir string, img Image, opts ArchiveOptions) (ocispec.Descriptor, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the user's own output
		return ocispec.Descriptor{}, fmt.Errorf("make layout directory: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("open layout directory: %w", err)
	}
	defer root.Close() //nolint:errcheck // a directory handle
	return writeLayout(ctx, dirSink{root}, img, opts)
}

// sink takes the files of a layout in any order; a file given twice is the
// same both times.
type sink interface {
	put(name string, size int64, r io.Reader) error
}

func writeLayout(ctx context.Context, out sink, img Image, opts ArchiveOptions) (ocispec.Descriptor, error) {
	layers, err := writeLayers(ctx, out, img.Layers, opts)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	docker := opts.Docker && !opts.OCITypes
	config := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(img.Config), Size: int64(len(img.Config))}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config, Layers: layers, Annotations: img.Annotations,
	}
	if docker {
		m.MediaType, m.Config.MediaType, m.Annotations = mediaTypeManifest2, mediaTypeConfig2, nil
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write manifest: %w", err)
	}
	desc := ocispec.Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	if err := errors.Join(putBlob(out, img.Config), putBlob(out, manifest)); err != nil {
		return desc, err
	}
	if opts.Docker {
		if err := putDockerManifest(out, config, layers, img.Names); err != nil {
			return desc, err
		}
	}
	if err := putBytes(out, ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)); err != nil {
		return desc, err
	}
	return desc, putIndex(out, desc, img)
}

func writeLayers(ctx context.Context, out sink, layers []storage.Layer, opts ArchiveOptions) ([]ocispec.Descriptor, error) {
	descs := make([]ocispec.Descriptor, 0, len(layers))
	for _, l := range layers {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		desc, err := writeLayer(ctx, out, l, opts)
		if err != nil {
			return nil, fmt.Errorf("write layer %s: %w", l.DiffID, err)
		}
		descs = append(descs, desc)
	}
	return descs, nil
}

// writeLayer sends an uncompressed layer straight through. A compressed one
// has to wait in a file, for its size must be known first.
func writeLayer(ctx context.Context, out sink, l storage.Layer, opts ArchiveOptions) (desc ocispec.Descriptor, err error) {
	src, err := opts.Open(l.ID)
	if err != nil {
		return desc, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	desc.MediaType = opts.Compression.mediaType(opts.Docker && !opts.OCITypes)
	if opts.Compression.Type == Uncompressed {
		desc.Digest, desc.Size = l.DiffID, l.Size
		return desc, out.put(blobName(l.DiffID), l.Size, contextReader{ctx, src})
	}
	tmp, err := os.CreateTemp(opts.TempDir, "layer-")
	if err != nil {
		return desc, err
	}
	defer tmp.Close()
	if err := os.Remove(tmp.Name()); err != nil {
		return desc, err
	}
	hash := digest.SHA256.Digester()
	counter := &countingWriter{w: io.MultiWriter(tmp, hash.Hash())}
	if err := opts.Compression.compress(counter, contextReader{ctx, src}); err != nil {
		return desc, err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return desc, err
	}
	desc.Digest, desc.Size = hash.Digest(), counter.n
	return desc, out.put(blobName(desc.Digest), desc.Size, tmp)
}

// putDockerManifest writes the file by which `docker load` and `podman load`
// find the image.
func putDockerManifest(out sink, config ocispec.Descriptor, layers []ocispec.Descriptor, names []string) error {
	entry := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{Config: blobName(config.Digest), Layers: []string{}}
	for _, l := range layers {
		entry.Layers = append(entry.Layers, blobName(l.Digest))
	}
	for _, name := range names {
		entry.RepoTags = append(entry.RepoTags, familiar(name))
	}
	data, err := json.Marshal([]any{entry})
	if err != nil {
		return fmt.Errorf("write manifest.json: %w", err)
	}
	return putBytes(out, "manifest.json", data)
}

// putIndex names the manifest once for every tag, as buildx does.
func putIndex(out sink, desc ocispec.Descriptor, img Image) error {
	desc.Platform = &img.Platform
	created := map[string]string{ocispec.AnnotationCreated: img.Created.UTC().Format(time.RFC3339)}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range img.Names {
		d := desc
		d.Annotations = map[string]string{
			ocispec.AnnotationCreated: created[ocispec.AnnotationCreated],
			annotationImageName:       name,
			ocispec.AnnotationRefName: tag(name),
		}
		index.Manifests = append(index.Manifests, d)
	}
	if len(img.Names) == 0 {
		desc.Annotations = created
		index.Manifests = []ocispec.Descriptor{desc}
	}
	data, err := json.Marshal(index)
	if err != nil {
		return fmt.Errorf("write index.json: %w", err)
	}
	return putBytes(out, ocispec.ImageIndexFile, data)
}

func familiar(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}

func tag(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
		return tagged.Tag()
	}
	return ""
}

func blobName(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

func putBlob(out sink, data []byte) error {
	return putBytes(out, blobName(digest.FromBytes(data)), data)
}

func putBytes(out sink, name string, data []byte) error {
	return out.put(name, int64(len(data)), bytes.NewReader(data))
}

// tarSink writes entries with nothing in them that depends on when or by whom
// they are written.
type tarSink struct {
	tw   *tar.Writer
	seen map[string]bool
}

func (s *tarSink) put(name string, size int64, r io.Reader) error {
	if s.seen[name] {
		return nil
	}
	if err := s.parents(name); err != nil {
		return err
	}
	s.seen[name] = true
	if err := s.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: size}); err != nil {
		return fmt.Errorf("write %s to the archive: %w", name, err)
	}
	if _, err := io.Copy(s.tw, r); err != nil {
		return fmt.Errorf("write %s to the archive: %w", name, err)
	}
	return nil
}

func (s *tarSink) parents(name string) error {
	dir := filepath.Dir(name)
	if dir == "." || s.seen[dir] {
		return nil
	}
	if err := s.parents(dir); err != nil {
		return err
	}
	s.seen[dir] = true
	if err := s.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
		return fmt.Errorf("write %s to the archive: %w", dir, err)
	}
	return nil
}

type dirSink struct{ root *os.Root }

// put lets a file appear complete or not at all.
func (s dirSink) put(name string, size int64, r io.Reader) error {
	if err := s.root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	tmp := name + ".tmp"
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	n, err := io.Copy(f, r)
	err = errors.Join(err, f.Close())
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = s.root.Rename(tmp, name)
	}
	if err != nil {
		_ = s.root.Remove(tmp)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// contextReader ends a long copy when ctx does.
type contextReader struct {
	ctx context.Context //nolint:containedctx // the reader lives for one copy
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
