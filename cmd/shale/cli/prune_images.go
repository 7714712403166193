package cli

import (
	"context"
	"errors"
	"io"

	"github.com/shale-build/shale/storage"
)

func pruneImages(ctx context.Context, w io.Writer, store *storage.Store, opts pruneOptions) (int64, error) {
	return pruneImagesOf(ctx, w, store, opts)
}

// pruneImagesOf removes images, newest first. It returns the size of the layers that no
// remaining image uses. The build cache may keep some of these layers.
func pruneImagesOf(ctx context.Context, w io.Writer, store imageStore, opts pruneOptions) (int64, error) {
	if len(opts.types)+len(opts.ids) > 0 {
		return 0, nil
	}
	images, err := store.Images()
	if err != nil {
		return 0, err
	}
	match, err := newImageMatcher(store, opts.filters, opts.until)
	if err != nil {
		return 0, err
	}
	match.before = opts.until
	gone, kept := map[string]int64{}, map[string]int64{}
	for _, img := range images {
		removed, layers, err := pruneOne(ctx, w, store, match, img, opts)
		if err != nil {
			return 0, err
		}
		if removed {
			addLayers(gone, layers)
		} else {
			addLayers(kept, layers)
		}
	}
	for id := range kept {
		delete(gone, id)
	}
	return sum(gone), nil
}

// pruneOne removes an image if opts select it, and returns the layers of the image. It
// does not remove an image that another process has removed, renamed or used meanwhile.
func pruneOne(ctx context.Context, w io.Writer, store imageStore, match *imageMatcher, img storage.Image, opts pruneOptions) (removed bool, layers []storage.Layer, err error) {
	if err := context.Cause(ctx); err != nil {
		return false, nil, err
	}
	layers, _, err = layersOf(store, img)
	if err != nil {
		return false, nil, err
	}
	wanted := !img.ReadOnly && (img.Dangling() || opts.all && len(img.Names) > 0)
	if wanted {
		_, wanted, err = match.names(img)
	}
	if err == nil && wanted && opts.dryRun {
		return true, layers, errors.Join(printEach(w, "Untagged: ", img.Names), printEach(w, "Deleted: ", []string{imageID(img.ID)}))
	}
	if err == nil && wanted {
		err = deleteImage(w, store, img, img.Names, false)
		removed = err == nil
	}
	for _, meanwhile := range []error{storage.ErrImageInUse, storage.ErrImageUnknown, storage.ErrImageChanged, storage.ErrReadOnly} {
		if errors.Is(err, meanwhile) {
			return false, layers, nil
		}
	}
	return removed, layers, err
}

// layersOf returns the layers of an image. It reports false if another process has
// removed the image meanwhile.
func layersOf(store imageReader, img storage.Image) (layers []storage.Layer, there bool, err error) {
	layers, err = store.Chain(img.TopLayer)
	if !errors.Is(err, storage.ErrLayerUnknown) {
		return layers, true, err
	}
	_, err = store.Image(img.ID)
	if errors.Is(err, storage.ErrImageUnknown) {
		return nil, false, nil
	}
	return nil, true, err
}
