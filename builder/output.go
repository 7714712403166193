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
	"github.com/shale-build/shale/storage/registry"
)

// finished is what a build made, before it is written anywhere.
type finished struct {
	export.Build
	// tops are the topmost layers of the platforms, "" for none.
	tops []string
	// graphs are what they were made from.
	graphs []*llb.Graph
}

// outputs writes what was built wherever it was asked for. Registries come
// last: nothing is pushed when another output fails.
func (b *build) outputs(ctx context.Context, f finished) (*Result, error) {
	res := &Result{Metadata: map[string]any{}}
	layers := &export.Layers{Open: b.deps.Store.OpenDiff, TempDir: b.work.Dir, Origin: b.origin}
	if err := b.addInline(ctx, f); err != nil {
		return nil, err
	}
	var pushes []func() error
	for _, o := range b.outs {
		if len(o.unknown) > 0 {
			b.deps.Logger.Warn("output options are not known and have no effect", "type", o.Type, "options", strings.Join(o.unknown, ", "))
		}
		w := &writer{build: b, output: o, finished: f, layers: layers, res: res, step: newStep(b.deps.Progress, o.title())}
		push, err := w.write(ctx)
		if err != nil || push == nil {
			w.step.done(err)
		}
		if err != nil {
			return nil, err
		}
		if push != nil {
			pushes = append(pushes, func() error {
				err := push(ctx)
				w.step.done(err)
				return err
			})
		}
	}
	for _, push := range pushes {
		if err := push(); err != nil {
			return nil, err
		}
	}
	return res, b.exportCaches(ctx, f, layers)
}

// origin finds a layer of a base image as it was published.
func (b *build) origin(diffID digest.Digest) (export.Origin, bool) {
	o, ok := b.images.Origin(diffID)
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
}

// write writes the output, but for what goes to a registry: push does that, nil
// for nothing.
func (w *writer) write(ctx context.Context) (push func(context.Context) error, err error) {
	switch {
	case w.Type == "local":
		return nil, w.toDirectory(ctx)
	case w.Type == "tar":
		return nil, w.toTar(ctx)
	case w.archive():
		return nil, w.toArchive(ctx)
	}
	if w.store {
		if err := w.toStore(ctx); err != nil {
			return nil, err
		}
	}
	if w.push {
		return w.toRegistry(ctx)
	}
	if !w.store {
		img, err := w.compose(ctx, w.image)
		if err == nil {
			w.report(img, img.Root, nil)
		}
		return nil, err
	}
	return nil, nil
}

// compose decides on the form of the image and reports it.
func (w *writer) compose(ctx context.Context, opts export.ImageOptions) (*export.Image, error) {
	w.noteRewriting(opts)
	done := w.step.begin("exporting layers")
	img, err := export.Compose(ctx, w.Build, opts, w.layers)
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

// noteRewriting says what becomes of timestamps, or why nothing does.
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

// report fills in what --iidfile and --metadata-file write, with buildx's keys.
// A later output overrides an earlier one.
func (w *writer) report(img *export.Image, desc ocispec.Descriptor, names []string) {
	delete(w.res.Metadata, "containerimage.config.digest")
	w.res.ImageID = desc.Digest.String()
	if id := img.ConfigDigest(); id != "" {
		w.res.ImageID = id.String()
		w.res.Metadata["containerimage.config.digest"] = id.String()
	}
	w.res.Metadata["containerimage.digest"] = desc.Digest.String()
	w.res.Metadata["containerimage.descriptor"] = desc
	if len(names) > 0 {
		w.res.Metadata["image.name"] = strings.Join(names, ",")
	}
}

// toStore keeps the image in the store, where layers lie uncompressed.
func (w *writer) toStore(ctx context.Context) error {
	opts := w.image
	opts.Compression = export.Compression{Type: export.Uncompressed, Force: true}
	img, err := w.compose(ctx, opts)
	if err != nil {
		return err
	}
	names, err := w.storeNames(img.Root.Digest)
	if err != nil {
		return err
	}
	ids := map[digest.Digest]string{}
	for i, m := range img.Manifests {
		top, err := w.importLayers(ctx, m, w.tops[i])
		if err != nil {
			return err
		}
		spec := storage.ImageSpec{Config: m.Config, Manifest: m.Data, TopLayer: top}
		if img.Index == nil {
			spec.Names = names
		}
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
	w.report(img, img.Root, names)
	return nil
}

// storeNames are the names of the image in the store.
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

// importLayers brings layers whose timestamps were rewritten into the store
// and returns the topmost one.
func (w *writer) importLayers(ctx context.Context, m export.Manifest, top string) (string, error) {
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
	if !rewritten {
		return top, nil
	}
	return parent, nil
}

func (w *writer) importLayer(ctx context.Context, parent string, l export.Layer) (id string, err error) {
	r, err := l.Open()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	made, err := w.deps.Store.ImportLayer(ctx, parent, l.DiffID, r)
	return made.ID, err
}

// toRegistry prepares the image and returns what pushes it under all its
// names.
func (w *writer) toRegistry(ctx context.Context) (func(context.Context) error, error) {
	img, err := w.compose(ctx, w.image)
	if err != nil {
		return nil, err
	}
	names, err := w.registryNames()
	if err != nil {
		return nil, err
	}
	w.report(img, img.Root, names)
	return func(ctx context.Context) error {
		err := w.pushAll(ctx, img, names)
		if err == nil || !w.layers.Unpublished() || ctx.Err() != nil {
			return err
		}
		w.deps.Logger.Warn("layers of the base image cannot be fetched as they were published and are compressed again", "error", err)
		opts := w.image
		opts.Compression.Force = true
		if img, err = w.compose(ctx, opts); err != nil {
			return err
		}
		w.report(img, img.Root, names)
		return w.pushAll(ctx, img, names)
	}, nil
}

func (w *writer) pushAll(ctx context.Context, img *export.Image, names []string) error {
	for _, name := range names {
		if err := w.pushTo(ctx, img, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) pushTo(ctx context.Context, img *export.Image, name string) error {
	ref := name
	if w.byDigest {
		ref = withoutTag(name)
	}
	done := w.step.begin("pushing " + ref + "@" + img.Root.Digest.String())
	err := w.deps.Registry.PushPrepared(ctx, prepared(img), name, registry.PreparedOptions{
		Insecure: w.insecure, ByDigest: w.byDigest, Progress: w.step,
	})
	done(err)
	return err
}

// prepared is an image as package registry takes it.
func prepared(img *export.Image) registry.Prepared {
	blobs := map[digest.Digest]export.Blob{}
	for _, b := range img.Blobs() {
		blobs[b.Desc.Digest] = b
	}
	p := registry.Prepared{
		Manifest: img.Manifests[0].Data, MediaType: img.Root.MediaType,
		Open: func(d digest.Digest) (io.ReadCloser, int64, error) {
			b, ok := blobs[d]
			if !ok {
				return nil, 0, fmt.Errorf("image has no blob %s", d)
			}
			r, err := b.Open()
			return r, b.Desc.Size, err
		},
	}
	if img.Index == nil {
		return p
	}
	p.Manifest = img.Index
	p.Manifests, p.MediaTypes = map[digest.Digest][]byte{}, map[digest.Digest]string{}
	for _, m := range img.Manifests {
		p.Manifests[m.Desc.Digest], p.MediaTypes[m.Desc.Digest] = m.Data, m.Desc.MediaType
	}
	return p
}

// toArchive writes an OCI or docker archive, or with tar=false a layout
// directory.
func (w *writer) toArchive(ctx context.Context) error {
	if w.Type == "docker" && w.Multi {
		return errors.New("docker exporter does not support exporting manifest lists, use the oci exporter instead")
	}
	names, err := w.registryNames()
	if err != nil {
		return err
	}
	opts := w.image
	opts.Complete = true
	img, err := w.compose(ctx, opts)
	if err != nil {
		return err
	}
	if w.layout {
		done := w.step.begin("copying to layout")
		err := export.Layout(ctx, w.Dest, img, names)
		done(err)
		if err != nil {
			return err
		}
	} else {
		done := w.step.begin("sending tarball")
		err := w.writeFile(w.Dest, func(out io.Writer) error {
			return export.Archive(ctx, out, img, names, w.Type == "docker")
		})
		done(err)
		if err != nil {
			return err
		}
	}
	w.report(img, img.Descriptor(), names)
	return nil
}

// trees shows the file systems of all platforms.
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
