package cli

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/format"
	"github.com/shale-build/shale/storage"
)

// none is printed if an image has no name, as docker does.
const none = "<none>"

func imagesCommand() *cli.Command {
	return &cli.Command{
		Name:      "images",
		Usage:     "List images",
		ArgsUsage: "[REPOSITORY[:TAG]]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "show the images of an index, too, one by one"},
			&cli.BoolFlag{Name: "digests", Usage: "show the digests of manifests"},
			filterFlag("only images that match `KEY=VALUE`: dangling, reference, label, before, since, until"),
			formatFlag("print with `FORMAT`: table, json or a Go template"),
			&cli.BoolFlag{Name: "no-trunc", Usage: "do not shorten IDs"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print IDs only"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 0, 1); err != nil {
				return err
			}
			filters, err := parseImageFilters(c.StringSlice("filter"))
			if err != nil {
				return usageError(c, err.Error())
			}
			if c.Args().Present() {
				filters = append(filters, imageFilter{"reference", c.Args().First()})
			}
			return withStore(c, func(s *session) error {
				return listImages(c.App.Writer, s.store, imagesOptions{
					filters: filters, format: c.String("format"), digests: c.Bool("digests"),
					noTrunc: c.Bool("no-trunc"), quiet: c.Bool("quiet"), all: c.Bool("all"), now: time.Now(),
				})
			})
		},
	}
}

func formatFlag(usage string) cli.Flag { return &cli.StringFlag{Name: "format", Usage: usage} }

func filterFlag(usage string) cli.Flag {
	return &cli.StringSliceFlag{Name: "filter", Usage: usage}
}

type imagesOptions struct {
	filters                 []imageFilter
	format                  string
	digests, noTrunc, quiet bool
	// all is set if the images of an index are listed too.
	all bool
	now time.Time
}

// imageRow describes one name of an image. Its fields have docker's names.
type imageRow struct {
	Containers   string
	CreatedAt    string
	CreatedSince string
	Digest       string
	ID           string
	Repository   string
	SharedSize   string
	Size         string
	Tag          string
	UniqueSize   string
}

var imagesListing = format.Listing{
	Columns: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
	Headers: format.Headers{
		"Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID",
		"CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE",
		"Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	},
}

const imagesWithDigests = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"

func listImages(w io.Writer, store imageReader, opts imagesOptions) error {
	images, err := store.Images()
	if err != nil {
		return err
	}
	match, err := newImageMatcher(store, opts.filters, opts.now)
	if err != nil {
		return err
	}
	rows := []imageRow{}
	for _, img := range images {
		if len(img.Names) == 0 && img.Member && !opts.all {
			continue
		}
		names, ok, err := match.names(img)
		if errors.Is(err, storage.ErrImageUnknown) {
			continue // another process has just removed it
		}
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		layers, there, err := layersOf(store, img)
		if err != nil {
			return fmt.Errorf("size of image %s: %w", shortID(img.ID), err)
		}
		if !there {
			continue
		}
		rows = append(rows, imageRows(img, names, layersSize(layers), opts)...)
	}
	if opts.quiet {
		return printIDs(w, rows)
	}
	chosen := opts.format
	if opts.digests && (chosen == "" || chosen == "table") {
		chosen = imagesWithDigests
	}
	return format.Write(w, imagesListing, chosen, rows)
}

// imageRows returns one row per name, or a single row for an image without names.
func imageRows(img storage.Image, names []string, size int64, opts imagesOptions) []imageRow {
	base := imageRow{
		Containers: "N/A", SharedSize: "N/A", UniqueSize: "N/A",
		CreatedAt: img.Created.UTC().String(), CreatedSince: ago(img.Created, opts.now),
		ID: shortID(img.ID), Size: humanSize(size), Repository: none, Tag: none, Digest: none,
	}
	if opts.noTrunc {
		base.ID = imageID(img.ID)
	}
	if img.Digest != "" {
		base.Digest = img.Digest.String()
	}
	var rows []imageRow
	tagged := map[string]bool{}
	for _, name := range names {
		if repository, tag, dgst := splitName(name); dgst == "" {
			tagged[repository] = true
			rows = append(rows, base.called(repository, tag, ""))
		}
	}
	for _, name := range names {
		// A digest adds no information if the repository already has a row.
		if repository, _, dgst := splitName(name); dgst != "" && !tagged[repository] {
			tagged[repository] = true
			rows = append(rows, base.called(repository, "", dgst))
		}
	}
	if len(rows) == 0 {
		return []imageRow{base}
	}
	return rows
}

func (r imageRow) called(repository, tag string, dgst digest.Digest) imageRow {
	r.Repository = repository
	if tag != "" {
		r.Tag = tag
	}
	if dgst != "" {
		r.Digest = dgst.String()
	}
	return r
}

func printIDs(w io.Writer, rows []imageRow) error {
	for _, row := range rows {
		if _, err := fmt.Fprintln(w, row.ID); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	return nil
}
