package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/storage"
)

func rmiCommand() *cli.Command {
	return &cli.Command{
		Name:      "rmi",
		Usage:     "Remove images",
		ArgsUsage: "IMAGE [IMAGE...]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "remove an image that has several names or that a build uses, and ignore one that is not there"},
			&cli.BoolFlag{Name: "no-prune", Usage: "accepted for docker's sake: there are no untagged parents"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 1, -1); err != nil {
				return err
			}
			return withStoreToRemove(c, func(s *session) error {
				kept, err := builtLayers(s.store)
				if err != nil {
					return err
				}
				return removeImages(c.App.Writer, cachingStore{s.store, kept}, c.Args().Slice(), c.Bool("force"))
			})
		},
	}
}

// cachingStore removes images and leaves the layers of built images to the build cache,
// as docker does. The next build of the same image is then fast. "system prune" removes
// these layers.
type cachingStore struct {
	*storage.Store
	built map[string]bool
}

// RemoveImage implements imageStore.
func (s cachingStore) RemoveImage(id string, how storage.Removal) ([]string, error) {
	img, err := s.Image(id)
	if err != nil {
		return nil, err
	}
	how.KeepLayers = how.KeepLayers || s.built[img.TopLayer] || img.Index
	return s.Store.RemoveImage(img.ID, how)
}

// builtLayers returns the layers that the build cache contains.
func builtLayers(store *storage.Store) (map[string]bool, error) {
	dir, err := store.StateDir(builder.CacheState)
	if err != nil {
		return nil, err
	}
	layers, err := cache.Layers(dir)
	if err != nil {
		return nil, err
	}
	return layers, nil
}

// removeImages removes images. If one of them cannot be removed, it continues with the
// next one. It returns all errors.
func removeImages(w io.Writer, store imageStore, names []string, force bool) error {
	var errs []error
	for _, name := range names {
		err := removeImage(w, store, name, force)
		if force && errors.Is(err, storage.ErrImageUnknown) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// removeImage removes one name, and the image if this was its last name. If nameOrID is
// an ID, it removes all names and the image. In that case, the names must be of one
// repository unless force is set. If a build uses the image, it is only removed if
// force is set, and its layers stay.
func removeImage(w io.Writer, store imageStore, nameOrID string, force bool) error {
	for {
		err := removeImageOnce(w, store, nameOrID, force)
		if !errors.Is(err, storage.ErrImageChanged) {
			return err
		}
	}
}

func removeImageOnce(w io.Writer, store imageStore, nameOrID string, force bool) error {
	img, name, err := find(store, nameOrID)
	if err != nil {
		return err
	}
	if name == "" {
		if repositories(img.Names) > 1 && !force {
			return fmt.Errorf("image %s has names in several repositories: remove it by name or with --force", shortID(img.ID))
		}
		return deleteImage(w, store, img, img.Names, force)
	}
	gone, left := splitNames(img.Names, name)
	if len(left) == 0 {
		return deleteImage(w, store, img, gone, force)
	}
	if err := store.RemoveNames(img.ID, gone...); err != nil {
		return err
	}
	return printEach(w, "Untagged: ", gone)
}

// splitNames divides the names of an image into those that must be removed with name
// and those that stay. The digests of a repository are removed with its last tag.
func splitNames(names []string, name string) (gone, left []string) {
	repository, _, _ := splitName(name)
	lastTag := true
	for _, n := range names {
		if r, _, dgst := splitName(n); n != name && r == repository && dgst == "" {
			lastTag = false
		}
	}
	for _, n := range names {
		r, _, dgst := splitName(n)
		if n == name || lastTag && r == repository && dgst != "" {
			gone = append(gone, n)
		} else {
			left = append(left, n)
		}
	}
	return gone, left
}

func repositories(names []string) int {
	distinct := map[string]bool{}
	for _, name := range names {
		repository, _, _ := splitName(name)
		distinct[repository] = true
	}
	return len(distinct)
}

// deleteImage removes an image. It returns storage.ErrImageChanged if the image
// meanwhile got another name or became part of an index.
func deleteImage(w io.Writer, store imageStore, img storage.Image, names []string, force bool) error {
	how := storage.Removal{Still: func(now storage.Image) bool {
		return !slices.ContainsFunc(now.Names, func(n string) bool { return !slices.Contains(img.Names, n) }) && (img.Member || !now.Member)
	}}
	layers, err := store.RemoveImage(img.ID, how)
	if force && errors.Is(err, storage.ErrImageInUse) {
		how.Held = true
		layers, err = store.RemoveImage(img.ID, how)
	}
	if err != nil {
		return err
	}
	if err := printEach(w, "Untagged: ", names); err != nil {
		return err
	}
	deleted := []string{imageID(img.ID)}
	for _, l := range layers {
		deleted = append(deleted, imageID(l))
	}
	return printEach(w, "Deleted: ", deleted)
}

func printEach(w io.Writer, prefix string, lines []string) error {
	for _, line := range lines {
		if _, err := fmt.Fprintf(w, "%s%s\n", prefix, line); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	return nil
}
