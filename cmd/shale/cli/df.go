package cli

import (
	"fmt"
	"io"
	"path"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/cmd/shale/cli/format"
	"github.com/shale-build/shale/storage"
)

func dfCommand() *cli.Command {
	return &cli.Command{
		Name:  "df",
		Usage: "Show the disk space that the store uses",
		Flags: []cli.Flag{
			formatFlag("print with `FORMAT`: table, json or a Go template"),
			&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "list the build cache and cache mounts"},
		},
		Action: func(c *cli.Context) error {
			if err := noArguments(c); err != nil {
				return err
			}
			return withStore(c, func(s *session) error {
				built, err := openCache(s.store)
				if err != nil {
					return err
				}
				if c.Bool("verbose") {
					return listCache(c.App.Writer, built, c.String("format"), time.Now())
				}
				return showUsage(c.App.Writer, s.store, built, c.String("format"))
			})
		},
	}
}

// usageRow describes one kind of content. Its fields have docker's names.
type usageRow struct {
	Active      string
	Reclaimable string
	Size        string
	TotalCount  string
	Type        string
}

var usageListing = format.Listing{
	Columns: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
	Headers: format.Headers{
		"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
	},
}

func showUsage(w io.Writer, store imageReader, built buildCache, chosen string) error {
	images, err := imageUsage(store)
	if err != nil {
		return err
	}
	steps, err := built.Steps()
	if err != nil {
		return err
	}
	mounts, err := built.Mounts()
	if err != nil {
		return err
	}
	var stepSize, mountSize, mountsInUse int64
	active := 0
	for _, u := range steps {
		stepSize += max(0, u.Size)
	}
	for _, m := range mounts {
		mountSize += m.Size
		if m.InUse {
			active++
			mountsInUse += m.Size
		}
	}
	sources, err := built.Sources()
	if err != nil {
		return err
	}
	var sourceSize int64
	for _, s := range sources {
		sourceSize += s.Size
	}
	return format.Write(w, usageListing, chosen, []usageRow{
		images,
		newUsageRow("Build Cache", len(steps), 0, stepSize, stepSize),
		newUsageRow("Cache Mounts", len(mounts), active, mountSize, mountSize-mountsInUse),
		newUsageRow("Sources", len(sources), 0, sourceSize, sourceSize),
	})
}

func newUsageRow(kind string, total, active int, size, reclaimable int64) usageRow {
	row := usageRow{
		Type: kind, TotalCount: strconv.Itoa(total), Active: strconv.Itoa(active),
		Size: humanSize(size), Reclaimable: humanSize(reclaimable),
	}
	if size > 0 {
		row.Reclaimable += fmt.Sprintf(" (%d%%)", reclaimable*100/size)
	}
	return row
}

// imageUsage returns the row for images, in which every layer counts once. An image is
// active if it has a name or belongs to an index. The size of layers that no active
// image uses is reclaimable.
func imageUsage(store imageReader) (usageRow, error) {
	images, err := store.Images()
	if err != nil {
		return usageRow{}, err
	}
	named, all := map[string]int64{}, map[string]int64{}
	active, total := 0, 0
	for _, img := range images {
		layers, there, err := layersOf(store, img)
		if err != nil {
			return usageRow{}, fmt.Errorf("size of image %s: %w", shortID(img.ID), err)
		}
		if !there {
			continue
		}
		total++
		addLayers(all, layers)
		if !img.Dangling() {
			active++
			addLayers(named, layers)
		}
	}
	size := sum(all)
	return newUsageRow("Images", total, active, size, size-sum(named)), nil
}

func addLayers(sizes map[string]int64, layers []storage.Layer) {
	for _, l := range layers {
		sizes[l.ID] = max(0, l.Size)
	}
}

func sum(sizes map[string]int64) (total int64) {
	for _, size := range sizes {
		total += size
	}
	return total
}

// cacheRow describes one entry of the build cache. Its fields have docker's names.
type cacheRow struct {
	CacheType     string
	CreatedSince  string
	Description   string
	ID            string
	InUse         string
	LastUsedSince string
	Parent        string
	Shared        string
	Size          string
}

var cacheListing = format.Listing{
	Columns: "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.Shared}}\t{{.Description}}",
	Headers: format.Headers{
		"ID": "CACHE ID", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
		"LastUsedSince": "LAST USED", "Shared": "SHARED", "Parent": "PARENT", "InUse": "IN USE", "Description": "DESCRIPTION",
	},
}

func listCache(w io.Writer, built buildCache, chosen string, now time.Time) error {
	steps, err := built.Steps()
	if err != nil {
		return err
	}
	mounts, err := built.Mounts()
	if err != nil {
		return err
	}
	rows := []cacheRow{}
	for _, u := range steps {
		rows = append(rows, stepRow(u, now))
	}
	for _, m := range mounts {
		rows = append(rows, mountRow(m, now))
	}
	return format.Write(w, cacheListing, chosen, rows)
}

func stepRow(u cache.Usage, now time.Time) cacheRow {
	return cacheRow{
		CacheType: typeStep, InUse: "false", CreatedSince: ago(u.Created, now), Description: format.Ellipsis(u.Description, 60),
		ID: shortID(u.Layer), LastUsedSince: ago(u.Used, now), Parent: shortID(u.Parent),
		Shared: strconv.FormatBool(u.Shared), Size: humanSize(u.Size),
	}
}

// mountRow returns the row for a cache mount. If several steps use a private cache
// mount at the same time, each of them has its own directory, and each directory has a
// row.
func mountRow(m cachemount.Mount, now time.Time) cacheRow {
	return cacheRow{
		CacheType: typeMount, CreatedSince: "N/A", Description: mountTitle(m), ID: shortID(string(m.Key)),
		LastUsedSince: ago(m.Used, now), InUse: strconv.FormatBool(m.InUse), Shared: "false", Size: humanSize(m.Size),
	}
}

func mountTitle(m cachemount.Mount) string {
	if m.Slot == 0 {
		return mountID(m)
	}
	return fmt.Sprintf("%s (private %d)", mountID(m), m.Slot+1)
}

// mountID returns the ID without the double slash that the front end adds.
func mountID(m cachemount.Mount) string { return path.Clean("/" + m.ID) }
