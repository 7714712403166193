package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/progress"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/registry"
)

// finished is what a build made, before it is written anywhere.
type finished struct {
	config   []byte
	layers   []storage.Layer
	layer    string // topmost, "" for none
	created  time.Time
	platform ocispec.Platform
}

func (f finished) imageID() string { return digest.FromBytes(f.config).String() }

// outputs writes what was built wherever it was asked for.
func (b *build) outputs(ctx context.Context, f finished) (*Result, error) {
	res := &Result{Metadata: map[string]any{}}
	exports := b.opts.Exports
	if len(exports) == 0 {
		exports = []Export{{Type: "image"}}
	}
	for _, e := range exports {
		if err := b.output(ctx, f, e, res); err != nil {
			return nil, err
		}
	}
	return res, nil
}

func (b *build) output(ctx context.Context, f finished, e Export, res *Result) error {
	write, what := b.writer(e)
	if write == nil {
		return fmt.Errorf("output type %q is not known: use image, local, tar, oci, docker or registry", e.Type)
	}
	if err := checkAttrs(e); err != nil {
		return err
	}
	step := newStep(b.deps.Progress, what)
	err := write(ctx, f, e, res, step)
	step.done(err)
	return err
}

type writeFunc func(ctx context.Context, f finished, e Export, res *Result, step *step) error

func (b *build) writer(e Export) (writeFunc, string) {
	switch e.Type {
	case "image":
		return b.toStore, "exporting to image"
	case "docker":
		if e.Dest == "" {
			return b.toStore, "exporting to image"
		}
		return b.toArchive, "exporting to docker image format"
	case "oci":
		return b.toArchive, "exporting to oci image format"
	case "local":
		return b.toDirectory, "exporting to client directory"
	case "tar":
		return b.toTar, "exporting to client tarball"
	case "registry":
		return b.toRegistry, "exporting to image"
	}
	return nil, ""
}

// exportAttrs are the attributes each type knows.
var exportAttrs = map[string][]string{
	"image":    {"name", "push", "oci-mediatypes", "compression", "compression-level"},
	"docker":   {"name", "oci-mediatypes", "compression", "compression-level", "tar"},
	"oci":      {"name", "oci-mediatypes", "compression", "compression-level", "tar"},
	"registry": {"name", "push", "oci-mediatypes", "compression", "compression-level"},
}

// checkAttrs refuses what would otherwise be ignored without a word.
func checkAttrs(e Export) error {
attrs:
	for name := range e.Attrs {
		for _, known := range exportAttrs[e.Type] {
			if name == known {
				continue attrs
			}
		}
		return fmt.Errorf("output type %s has no option %q", e.Type, name)
	}
	return nil
}

// tags are the names of an export's image: its own or the build's.
func (b *build) tags(e Export) []string {
	if own := e.Attrs["name"]; own != "" {
		return strings.Split(own, ",")
	}
	return b.opts.Tags
}

// toStore keeps the image in the store.
func (b *build) toStore(ctx context.Context, f finished, e Export, res *Result, step *step) error {
	var names []string
	for _, tag := range b.tags(e) {
		name, err := storeName(tag)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	docker := b.opts.Format == "docker" || e.Type == "docker"
	manifest, err := manifestFor(f.config, f.layers, docker, nil)
	if err != nil {
		return err
	}
	step.note("exporting layers")
	_, err = b.deps.Store.CreateImage(ctx, storage.ImageSpec{
		Config: f.config, Manifest: manifest, TopLayer: f.layer, Names: names,
	})
	if err != nil {
		return err
	}
	step.note("writing image " + f.imageID())
	for _, name := range names {
		step.note("naming to " + name)
	}
	desc := descriptor(manifest, docker)
	b.report(res, f, desc, names)
	if e.Attrs["push"] == "true" {
		return b.toRegistry(ctx, f, e, res, step)
	}
	return nil
}

func descriptor(manifest []byte, docker bool) ocispec.Descriptor {
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
	}
	if docker {
		desc.MediaType = mediaTypeDockerManifest
	}
	return desc
}

// report fills in what --iidfile and --metadata-file write, with buildx's keys.
func (b *build) report(res *Result, f finished, desc ocispec.Descriptor, names []string) {
	res.ImageID = f.imageID()
	res.Metadata["containerimage.config.digest"] = f.imageID()
	res.Metadata["containerimage.digest"] = desc.Digest.String()
	res.Metadata["containerimage.descriptor"] = desc
	if len(names) > 0 {
		res.Metadata["image.name"] = strings.Join(names, ",")
	}
}

// toRegistry pushes the image without keeping it.
func (b *build) toRegistry(ctx context.Context, f finished, e Export, res *Result, step *step) error {
	tags := b.tags(e)
	if len(tags) == 0 {
		return errors.New("an image cannot be pushed without a name: give one with -t or name=")
	}
	compression, err := export.ParseCompression(e.Attrs)
	if err != nil {
		return err
	}
	src := registry.Source{Config: f.config, Layers: f.layers, Docker: b.dockerTypes(e)}
	var names []string
	for _, tag := range tags {
		name, err := registryName(tag)
		if err != nil {
			return err
		}
		desc, err := b.deps.Registry.Push(ctx, src, name, registry.PushOptions{
			Compression: compression.Type, Level: compression.Level, Progress: step,
		})
		if err != nil {
			return err
		}
		step.note("pushed " + name + "@" + desc.Digest.String())
		names = append(names, name)
		b.report(res, f, desc, names)
	}
	return nil
}

func (b *build) dockerTypes(e Export) bool {
	if own, ok := e.Attrs["oci-mediatypes"]; ok {
		return own == "false"
	}
	return b.opts.Format == "docker"
}

// toArchive writes an OCI or docker archive, or with tar=false a layout
// directory.
func (b *build) toArchive(ctx context.Context, f finished, e Export, res *Result, step *step) error {
	var names []string
	for _, tag := range b.tags(e) {
		name, err := registryName(tag)
		if err != nil {
			return err
		}
		names = append(names, name)
	}
	compression, err := export.ParseCompression(e.Attrs)
	if err != nil {
		return err
	}
	opts := export.ArchiveOptions{
		Docker:      e.Type == "docker",
		OCITypes:    e.Attrs["oci-mediatypes"] == "true",
		Compression: compression,
		Open:        b.deps.Store.OpenDiff,
		TempDir:     b.work.Dir,
	}
	img := export.Image{Config: f.config, Layers: f.layers, Platform: f.platform, Created: f.created, Names: names}
	step.note("exporting layers")
	var desc ocispec.Descriptor
	if e.Attrs["tar"] == "false" {
		if e.Dest == "" || e.Dest == "-" {
			return errors.New("an image layout needs a directory: give dest=")
		}
		desc, err = export.Layout(ctx, e.Dest, img, opts)
	} else {
		err = b.writeFile(e.Dest, func(w io.Writer) error {
			desc, err = export.Archive(ctx, w, img, opts)
			return err
		})
	}
	if err != nil {
		return err
	}
	step.note("exporting manifest " + desc.Digest.String())
	step.note("exporting config " + f.imageID())
	b.report(res, f, desc, names)
	return nil
}

func (b *build) toDirectory(ctx context.Context, f finished, e Export, _ *Result, step *step) error {
	if e.Dest == "" {
		return errors.New("output type local needs a directory: give dest=")
	}
	root, err := b.mounts.View(f.layer)
	if err != nil {
		return err
	}
	step.note("copying files")
	return export.Files(ctx, root, e.Dest)
}

func (b *build) toTar(ctx context.Context, f finished, e Export, _ *Result, step *step) error {
	root, err := b.mounts.View(f.layer)
	if err != nil {
		return err
	}
	step.note("sending tarball")
	return b.writeFile(e.Dest, func(w io.Writer) error { return export.Tar(ctx, root, w) })
}

// writeFile writes to path, which appears complete or not at all, or to
// standard output for "-" and "".
func (b *build) writeFile(path string, write func(io.Writer) error) error {
	if path == "" || path == "-" {
		if b.deps.Stdout == nil {
			return errors.New("this output needs a file: give dest=")
		}
		return write(b.deps.Stdout)
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return writeInto(path, info, write)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	err = write(tmp)
	// As os.Create would have made it; the umask is 022 here.
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// writeInto writes to what is there already and is no file: a pipe, /dev/null.
func writeInto(path string, info os.FileInfo, write func(io.Writer) error) error {
	if info.IsDir() {
		return fmt.Errorf("write %s: it is a directory; give dest= a file name", path)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return errors.Join(write(f), f.Close())
}

// step is an export as progress shows it.
type step struct {
	sink   progress.Sink
	vertex progress.Vertex
}

func newStep(sink progress.Sink, name string) *step {
	now := time.Now()
	s := &step{sink: sink, vertex: progress.Vertex{
		Digest: digest.FromString(name + now.String()), Name: name, Started: &now,
	}}
	sink.Vertex(s.vertex)
	return s
}

// note shows something that is done already.
func (s *step) note(what string) {
	now := time.Now()
	s.sink.Status(progress.Status{ID: what, Vertex: s.vertex.Digest, Timestamp: now, Started: &now, Completed: &now})
}

func (s *step) done(err error) {
	now := time.Now()
	s.vertex.Completed = &now
	if err != nil {
		s.vertex.Error = err.Error()
	}
	s.sink.Vertex(s.vertex)
}

// Update implements registry.Progress.
func (s *step) Update(id string, current, total int64, done bool) {
	now := time.Now()
	st := progress.Status{
		ID: "pushing " + id, Vertex: s.vertex.Digest, Current: current, Total: total, Timestamp: now, Started: s.vertex.Started,
	}
	if done {
		st.Completed = &now
	}
	s.sink.Status(st)
}
