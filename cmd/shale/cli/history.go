package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/cmd/shale/cli/format"
	"github.com/shale-build/shale/storage"
)

// createdByWidth is the number of characters of a command that the table shows.
const createdByWidth = 45

func historyCommand() *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "Show the history of an image",
		ArgsUsage: "IMAGE",
		Flags: []cli.Flag{
			formatFlag("print with `FORMAT`: table, json or a Go template"),
			&cli.BoolFlag{Name: "human", Aliases: []string{"H"}, Value: true, Usage: "print sizes and dates in words"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "do not shorten anything"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print image IDs only"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 1, 1); err != nil {
				return err
			}
			return withStore(c, func(s *session) error {
				return showHistory(c.App.Writer, s.store, c.Args().First(), historyOptions{
					format: c.String("format"), human: c.Bool("human"), noTrunc: c.Bool("no-trunc"),
					quiet: c.Bool("quiet"), now: time.Now(),
				})
			})
		},
	}
}

type historyOptions struct {
	format                string
	human, noTrunc, quiet bool
	now                   time.Time
}

// historyRow describes one entry of the history. Its fields have docker's names.
type historyRow struct {
	Comment      string
	CreatedAt    string
	CreatedBy    string
	CreatedSince string
	ID           string
	Size         string
}

var historyListing = format.Listing{
	Columns: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
	Headers: format.Headers{
		"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
		"CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
	},
}

const historyDates = "table {{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"

func showHistory(w io.Writer, store imageReader, name string, opts historyOptions) error {
	img, _, err := find(store, name)
	if err != nil {
		return err
	}
	config, err := readConfig(store, img)
	if err != nil {
		return err
	}
	layers, err := store.Chain(img.TopLayer)
	if err != nil {
		return err
	}
	for i, l := range layers {
		if layers[i].Size, err = store.ContentSize(l); err != nil {
			return err
		}
	}
	rows := historyRows(img, config.History, layers, opts)
	if opts.quiet {
		for _, row := range rows {
			if _, err := fmt.Fprintln(w, row.ID); err != nil {
				return fmt.Errorf("write result: %w", err)
			}
		}
		return nil
	}
	chosen := opts.format
	if !opts.human && (chosen == "" || chosen == "table") {
		chosen = historyDates
	}
	return format.Write(w, historyListing, chosen, rows)
}

// readConfig returns the decoded config of an image.
func readConfig(store imageReader, img storage.Image) (dockerspec.DockerOCIImage, error) {
	data, err := store.ImageConfig(img.ID)
	if err != nil {
		return dockerspec.DockerOCIImage{}, err
	}
	var config dockerspec.DockerOCIImage
	if err := json.Unmarshal(data, &config); err != nil {
		return dockerspec.DockerOCIImage{}, fmt.Errorf("read config of image %s: %w", shortID(img.ID), err)
	}
	return config, nil
}

// historyRows returns one row per history entry, newest first. An entry that created a
// layer has the size of that layer; the layers are in the order of the entries. If the
// image has no history, or too few entries, each remaining layer has its own row.
func historyRows(img storage.Image, history []ocispec.History, layers []storage.Layer, opts historyOptions) []historyRow {
	rows := []historyRow{}
	next := 0
	for _, h := range history {
		var size int64
		if !h.EmptyLayer && next < len(layers) {
			size = max(0, layers[next].Size)
			next++
		}
		rows = append([]historyRow{newHistoryRow(h, size, opts)}, rows...)
	}
	for _, l := range layers[next:] {
		rows = append([]historyRow{newHistoryRow(ocispec.History{Created: &l.Created}, max(0, l.Size), opts)}, rows...)
	}
	for i := range rows {
		rows[i].ID = "<missing>"
	}
	if len(rows) > 0 {
		rows[0].ID = shortID(img.ID)
		if opts.noTrunc {
			rows[0].ID = imageID(img.ID)
		}
	}
	return rows
}

func newHistoryRow(h ocispec.History, size int64, opts historyOptions) historyRow {
	row := historyRow{Comment: h.Comment, CreatedSince: "N/A", CreatedBy: strings.ReplaceAll(h.CreatedBy, "\t", " ")}
	if h.Created != nil {
		row.CreatedSince = ago(*h.Created, opts.now)
		row.CreatedAt = h.Created.Format(time.RFC3339)
	}
	if !opts.noTrunc {
		row.CreatedBy = format.Ellipsis(row.CreatedBy, createdByWidth)
	}
	row.Size = strconv.FormatInt(size, 10)
	if opts.human {
		row.Size = humanSize(size)
	}
	return row
}
