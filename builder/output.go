package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/builder/llb"
	"github.com/shale-build/shale/storage"
	"github.com/shale-build/shale/storage/blobs"
	"github.com/shale-build/shale/storage/registry"
)

// finished is the result of a build before it is written to the outputs.
type finished struct {
	export.Build
	// tops are the topmost layers of the platforms, "" for a platform without a layer.
	tops []string
	// graphs are the graphs that the platforms were built from.
	graphs []*llb.Graph
}

// outputs writes the result to all outputs. Registries come last, so that nothing is
// pushed if another output fails.
func (b *build) outputs(ctx context.Context, f finished, layers *export.Layers) (*Result, error) {
	res := &Result{Metadata: map[string]any{}}
	if err := b.addInline(ctx, f); err != nil {
		return nil, err
	}
	var writers []*writer
	for _, o := range b.outs {
		if len(o.unknown) > 0 {
			b.deps.Logger.Warn("output options are not known and have no effect", "type", o.Type, "options", strings.Join(o.unknown, ", "))
		}
		w := &writer{build: b, output: o, finished: f, layers: layers, res: res, step: newStep(b.deps.Progress, o.title())}
		err := w.write(ctx)
		if err != nil || !w.push {
			w.step.done(err)
		}
		if err != nil {
			return nil, err
		}
		writers = append(writers, w)
	}
	for _, w := range writers {
		if !w.push {
			continue
		}
		err := w.toRegistry(ctx)
		w.step.done(err)
		if err != nil {
			return nil, err
		}
	}
	for _, w := range writers {
		w.report()
	}
	return res, nil
}

// origin returns a layer of a base image in the form in which it was published.
func (b *build) origin(ctx context.Context, diffID digest.Digest) (export.Origin, bool) {
	o, ok := b.images.Origin(ctx, diffID)
	return export.Origin{Desc: o.Desc, Open: o.Open}, ok
}

// writer writes one output.
type writer struct {
	*build
	output
	finished
	layers *export.Layers
	res    *Result
	step   *step
	// made is the image that was written. It is nil if the output consists of files.
	made *made
}

// made describes an image for the report to the user.
type made struct {
	img   *export.Image
	desc  ocispec.Descriptor
	names []string
}

// write writes the output, except for the parts that go to a registry.
func (w *writer) write(ctx context.Context) error {
	switch {
	case w.Type == "local":
		return w.toDirectory(ctx)
	case w.Type == "tar":
		return w.toTar(ctx)
	case w.archive():
		return w.toArchive(ctx)
	}
	if err := export.Check(w.Build, w.image); err != nil {
		return err
	}
	if w.store {
		return w.toStore(ctx)
	}
	if !w.push {
		img, err := w.compose(ctx, w.image, blobs.Nowhere{})
		if err == nil {
			w.made = &made{img, img.Root, nil}
		}
		return err
	}
	return nil
}

// compose decides on the form of the image, writes its layers to a sink and shows
// progress.
func (w *writer) compose(ctx context.Context, opts export.ImageOptions, to blobs.Sink) (*export.Image, error) {
	w.noteRewriting(opts)
	var moving blobs.Progress
	if w.push {
		moving = w.step
	}
	done := w.step.begin("exporting layers")
	img, err := export.Compose(ctx, w.Build, opts, w.layers, to, moving)
	done(err)
	if err != nil {
		return nil, err
	}
	for _, m := range img.Manifests {
		w.step.note("exporting manifest " + m.Desc.Digest.String())
		w.step.note("exporting config " + digest.FromBytes(m.Config).String())
	}
	if img.Index != nil {
		w.step.note("exporting manifest list " + img.Root.Digest.String())
	}
	return img, nil
}

// noteRewriting shows the timestamp that rewritten files get. It warns if no timestamp
// was given.
func (w *writer) noteRewriting(opts export.ImageOptions) {
	if !opts.RewriteTimestamp {
		return
	}
	for _, p := range w.Platforms {
		epoch := p.Epoch
		if opts.Epoch != nil {
			epoch = opts.Epoch.Time
		}
		if epoch == nil {
			w.deps.Logger.Warn("rewrite-timestamp is specified, but no source-date-epoch was found: give --build-arg SOURCE_DATE_EPOCH=SECONDS")
			return
		}
		w.step.note(fmt.Sprintf("rewriting layers with source-date-epoch %d (%s)", epoch.Unix(), epoch))
	}
}

// report fills in the values for --iidfile and --metadata-file, with buildx's keys. A
// later output overrides an earlier one.
func (w *writer) report() {
	if w.made == nil {
		return
	}
	delete(w.res.Metadata, "containerimage.config.digest")
	w.res.ImageID = w.made.desc.Digest.String()
	if id := w.made.img.ConfigDigest(); id != "" {
		w.res.ImageID = id.String()
		w.res.Metadata["containerimage.config.digest"] = id.String()
	}
	w.res.Metadata["containerimage.digest"] = w.made.desc.Digest.String()
	w.res.Metadata["containerimage.descriptor"] = w.made.desc
	if len(w.made.names) > 0 {
		w.res.Metadata["image.name"] = strings.Join(w.made.names, ",")
	}
}

// toStore keeps the image in the store, which holds layers uncompressed.
func (w *writer) toStore(ctx context.Context) error {
	opts := w.image
	opts.Compression = export.Compression{Form: blobs.Form{Type: blobs.Uncompressed}, Force: true}
	img, err := w.compose(ctx, opts, blobs.Nowhere{})
	if err != nil {
		return err
	}
	names, err := w.storeNames(img.Root.Digest)
	if err != nil {
		return err
	}
	ids := map[digest.Digest]string{}
	for _, m := range img.Manifests {
		top, err := w.importLayers(ctx, m)
		if err != nil {
			return err
		}
		spec := storage.ImageSpec{Config: m.Config, Manifest: m.Data, TopLayer: top}
		if img.Index == nil {
			spec.Names = names
		}
		spec.Interim = len(spec.Names) == 0
		stored, err := w.deps.Store.CreateImage(ctx, spec)
		if err != nil {
			return err
		}
		ids[m.Desc.Digest] = stored.ID
		w.step.note("writing image sha256:" + stored.ID)
	}
	if img.Index != nil {
		if _, err := w.deps.Store.CreateIndex(ctx, storage.IndexSpec{Index: img.Index, Images: ids, Names: names}); err != nil {
			return err
		}
	}
	for _, name := range names {
		w.step.note("naming to " + name)
	}
	w.made = &made{img, img.Root, names}
	return nil
}

// storeNames returns the names that the image gets in the store.
func (w *writer) storeNames(dgst digest.Digest) ([]string, error) {
	var names []string
	for _, tag := range w.names {
		name, err := storeName(tag)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
		if w.canonical {
			names = append(names, withoutTag(name)+"@"+dgst.String())
		}
	}
	if w.dangling != "" && (!w.danglingOnly || len(names) == 0) {
		name, err := storeName(w.dangling)
		if err != nil {
			return nil, err
		}
		names = append(names, withoutTag(name)+"@"+dgst.String())
	}
	return names, nil
}

// importLayers imports the layers whose timestamps were rewritten into the store. It
// returns the ID of the topmost layer.
func (w *writer) importLayers(ctx context.Context, m export.Manifest) (string, error) {
	parent, rewritten := "", false
	for i, l := range m.Layers {
		have := m.Platform.Layers[i]
		rewritten = rewritten || l.DiffID != have.DiffID
		if !rewritten {
			parent = have.ID
			continue
		}
		id, err := w.importLayer(ctx, parent, l)
		if err != nil {
			return "", err
		}
		parent = id
	}
	return parent, nil
}

func (w *writer) importLayer(ctx context.Context, parent string, l export.Layer) (id string, err error) {
	r, err := l.Open(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	made, err := w.deps.Store.ImportLayer(ctx, parent, l.DiffID, r)
	return made.ID, err
}

// toRegistry pushes the image under all its names. If layers of the base image cannot be
// fetched as they were published, it compresses them again.
func (w *writer) toRegistry(ctx context.Context) error {
	names, err := w.registryNames()
	if err != nil {
		return err
	}
	img, err := w.pushFirst(ctx, names[0], w.image)
	if err != nil && w.layers.Unpublished() && ctx.Err() == nil {
		w.deps.Logger.Warn("layers of the base image cannot be fetched as they were published and are compressed again", "error", err)
		opts := w.image
		opts.Compression.Force = true
		img, err = w.pushFirst(ctx, names[0], opts)
	}
	if err != nil {
		return err
	}
	for _, name := range names[1:] {
		if err := w.pushTo(ctx, name, img, func(up *registry.Upload) error { return img.CopyTo(ctx, up) }); err != nil {
			return err
		}
	}
	w.made = &made{img, img.Root, names}
	return nil
}

// pushFirst decides on the form of the image while its layers are pushed, and pushes it
// under one name.
func (w *writer) pushFirst(ctx context.Context, name string, opts export.ImageOptions) (img *export.Image, err error) {
	err = w.deps.Registry.RetryPush(ctx, func() (err error) {
		img, err = w.composeAndPush(ctx, name, opts)
		return err
	})
	return img, err
}

func (w *writer) composeAndPush(ctx context.Context, name string, opts export.ImageOptions) (img *export.Image, err error) {
	up, err := w.upload(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, up.Close()) }()
	if img, err = w.compose(ctx, opts, up); err != nil {
		return nil, err
	}
	return img, w.finishPush(ctx, up, name, img, func(up *registry.Upload) error { return img.WriteConfigs(ctx, up) })
}

func (w *writer) pushTo(ctx context.Context, name string, img *export.Image, fill func(*registry.Upload) error) error {
	return w.deps.Registry.RetryPush(ctx, func() error {
		up, err := w.upload(ctx, name)
		if err != nil {
			return err
		}
		return errors.Join(w.finishPush(ctx, up, name, img, fill), up.Close())
	})
}

func (w *writer) upload(ctx context.Context, name string) (*registry.Upload, error) {
	return w.deps.Registry.Upload(ctx, name, registry.UploadOptions{Insecure: w.insecure, ByDigest: w.byDigest})
}

// finishPush writes the missing blobs, then the manifests. The tag is written last.
func (w *writer) finishPush(ctx context.Context, up *registry.Upload, name string, img *export.Image, fill func(*registry.Upload) error) (err error) {
	ref := name
	if w.byDigest {
		ref = withoutTag(name)
	}
	done := w.step.begin("pushing " + ref + "@" + img.Root.Digest.String())
	defer func() { done(err) }()
	if err := fill(up); err != nil {
		return err
	}
	if img.Index == nil {
		return up.Manifest(ctx, img.Manifests[0].Data)
	}
	for _, m := range img.Manifests {
		if err := up.Instance(ctx, m.Data); err != nil {
			return err
		}
	}
	return up.Manifest(ctx, img.Index)
}

// toArchive writes an OCI or docker archive, or a layout directory if tar=false.
func (w *writer) toArchive(ctx context.Context) error {
	if w.Type == "docker" && w.Multi {
		return errors.New("docker exporter does not support exporting manifest lists, use the oci exporter instead")
	}
	names, err := w.registryNames()
	if err != nil {
		return err
	}
	var img *export.Image
	if w.layout {
		img, err = w.toLayout(ctx, names)
	} else {
		err = w.writeFile(w.Dest, func(out io.Writer) (err error) {
			img, err = w.toTarball(ctx, out, names)
			return err
		})
	}
	if err != nil {
		return err
	}
	w.made = &made{img, img.Descriptor(), names}
	return nil
}

// whole returns options for an image with all its blobs, so that it can be written
// without a registry.
func (w *writer) whole() export.ImageOptions {
	opts := w.image
	opts.Complete = true
	return opts
}

func (w *writer) toLayout(ctx context.Context, names []string) (img *export.Image, err error) {
	l, err := blobs.OpenLayout(w.Dest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if img, err = w.compose(ctx, w.whole(), l); err != nil {
		return nil, err
	}
	done := w.step.begin("copying to layout")
	err = export.Layout(ctx, l, img, names)
	done(err)
	return img, err
}

func (w *writer) toTarball(ctx context.Context, out io.Writer, names []string) (*export.Image, error) {
	t, err := export.NewArchive(out, w.work.Dir)
	if err != nil {
		return nil, err
	}
	img, err := w.compose(ctx, w.whole(), t)
	if err != nil {
		return nil, err
	}
	done := w.step.begin("sending tarball")
	err = export.Archive(t, img, names, w.Type == "docker")
	done(err)
	return img, err
}

// trees returns the file systems of all platforms as directories.
func (w *writer) trees() (export.Trees, error) {
	t := export.Trees{Build: w.Build}
	if owners := w.mounts.Owners(); owners != nil {
		t.Owners = owners
	}
	for _, top := range w.tops {
		root, err := w.mounts.View(top)
		if err != nil {
			return t, err
		}
		t.Roots = append(t.Roots, root)
	}
	return t, nil
}

func (w *writer) toDirectory(ctx context.Context) error {
	t, err := w.trees()
	if err != nil {
		return err
	}
	done := w.step.begin("copying files")
	err = t.Files(ctx, w.Dest, w.output.files)
	done(err)
	return err
}

func (w *writer) toTar(ctx context.Context) error {
	t, err := w.trees()
	if err != nil {
		return err
	}
	done := w.step.begin("sending tarball")
	err = w.writeFile(w.Dest, func(out io.Writer) error { return t.Tar(ctx, out, w.output.files) })
	done(err)
	return err
}
