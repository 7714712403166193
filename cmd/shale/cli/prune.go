package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder/cache"
	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/gc"
	"github.com/shale-build/shale/builder/source/shelf"
	"github.com/shale-build/shale/storage"
)

// pruneOptions holds the flags of the prune commands.
type pruneOptions struct {
	all, dryRun bool
	// until selects only images that were created before it, and cache entries that
	// were last used at that time or before. The zero time selects all.
	until time.Time
	// filters restrict the images. Their key is always label.
	filters []imageFilter
	// types and ids restrict the build cache. If one of them is set, images are not
	// removed.
	types, ids []string
	// bounds limit the part of the build cache that stays. If all are zero, the whole
	// selected cache is removed.
	bounds gc.Policy
}

// Kinds of build cache, with docker's names.
const (
	typeStep   = "regular"
	typeMount  = "exec.cachemount"
	typeSource = "source"
)

// takes reports whether a kind of build cache must be pruned. Cache mounts must be
// pruned only if the user requests them by type or ID, or requests all.
func (o pruneOptions) takes(kind string) bool {
	if len(o.types) > 0 {
		return slices.Contains(o.types, kind)
	}
	return kind != typeMount || o.all || len(o.ids) > 0
}

// named reports whether an ID filter matches one of the names. It also reports true if
// there are no ID filters. At least six characters of the first name are enough for a
// match.
func (o pruneOptions) named(names ...string) bool {
	return len(o.ids) == 0 || slices.ContainsFunc(o.ids, func(id string) bool {
		return slices.Contains(names, id) || len(id) >= 6 && strings.HasPrefix(names[0], id)
	})
}

func (o pruneOptions) namesMount(m cachemount.Mount) bool {
	return o.named(string(m.Key), mountID(m), strings.TrimLeft(mountID(m), "/"))
}

// bound converts the bounds to the time o.until. Entries that were last used at that
// time or before must be removed. bound reports false if no entry must be removed.
func (o pruneOptions) bound(built buildCache) (pruneOptions, bool, error) {
	if !o.bounds.Bounded() {
		return o, true, nil
	}
	entries, err := o.candidates(built)
	if err != nil {
		return o, false, err
	}
	free, err := built.Free()
	if err != nil {
		return o, false, err
	}
	until, some := o.bounds.Cutoff(entries, free, time.Now())
	if o.until.IsZero() || until.Before(o.until) {
		o.until = until
	}
	return o, some, nil
}

// candidates returns the entries of the build cache that o selects, regardless of when
// they were used.
func (o pruneOptions) candidates(built buildCache) (entries []gc.Entry, err error) {
	if o.takes(typeStep) {
		steps, err := built.Steps()
		if err != nil {
			return nil, err
		}
		for _, u := range steps {
			if o.named(u.Layer) {
				entries = append(entries, gc.Entry{Size: u.Size, Used: u.Used})
			}
		}
	}
	if o.takes(typeSource) && len(o.ids) == 0 {
		sources, err := built.Sources()
		if err != nil {
			return nil, err
		}
		for _, u := range sources {
			entries = append(entries, gc.Entry{Size: u.Size, Used: u.Used})
		}
	}
	if o.takes(typeMount) {
		mounts, err := built.Mounts()
		if err != nil {
			return nil, err
		}
		for _, m := range mounts {
			if o.namesMount(m) {
				entries = append(entries, gc.Entry{Size: m.Size, Used: m.Used})
			}
		}
	}
	return entries, nil
}

func systemPruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "Remove images without a name and the build cache",
		Flags: pruneFlags(cacheFlags(), "remove named images and cache mounts, too", "; images also label=KEY[=VALUE]"+cacheFilters),
		Action: func(c *cli.Context) error {
			return prune(c, func(all bool) string {
				if all {
					return "all images no container is made of, all of the build cache and all cache mounts"
				}
				return "all images without a name and all of the build cache"
			}, pruneFetched, pruneImages, pruneStepsOfStore)
		},
	}
}

func imagePruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "Remove images without a name",
		Flags: pruneFlags(nil, "remove named images, too", " or label=KEY[=VALUE]"),
		Action: func(c *cli.Context) error {
			return prune(c, func(all bool) string {
				if all {
					return "all images no container is made of"
				}
				return "all images without a name"
			}, pruneImages)
		},
	}
}

func builderPruneCommand() *cli.Command {
	return &cli.Command{
		Name:  "prune",
		Usage: "Remove the build cache",
		Flags: pruneFlags(cacheFlags(), "remove cache mounts, too", cacheFilters),
		Action: func(c *cli.Context) error {
			return prune(c, func(all bool) string {
				if all {
					return "all of the build cache and all cache mounts"
				}
				return "all of the build cache"
			}, pruneFetched, pruneStepsOfStore)
		},
	}
}

func pruneFlags(more []cli.Flag, all, filters string) []cli.Flag {
	return append([]cli.Flag{
		&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: all},
		&cli.BoolFlag{Name: "dry-run", Usage: "only print the entries that would be removed"},
		filterFlag("only what matches: `until=TIME|DURATION`" + filters),
		&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "do not ask"},
	}, more...)
}

// cacheFilters describes the filters of the build cache for the help.
const cacheFilters = "; of the cache also type=regular, exec.cachemount or source, and id=ID"

// Flags that limit the build cache.
const (
	reservedFlag = "reserved-space"
	maxUsedFlag  = "max-used-space"
	minFreeFlag  = "min-free-space"
)

func cacheFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: reservedFlag, Aliases: []string{"keep-storage"}, Usage: "keep `SIZE` of the build cache in any case, the most recently used; alone, keep no more"},
		&cli.StringFlag{Name: maxUsedFlag, Usage: "keep up to `SIZE` of the build cache"},
		&cli.StringFlag{Name: minFreeFlag, Usage: "remove only until `SIZE` are free on the disk"},
	}
}

// pruner removes one kind of content and returns the number of bytes that this freed.
type pruner func(ctx context.Context, w io.Writer, store *storage.Store, opts pruneOptions) (int64, error)

func prune(c *cli.Context, what func(all bool) string, pruners ...pruner) error {
	if err := noArguments(c); err != nil {
		return err
	}
	opts, err := newPruneOptions(c, time.Now())
	if err != nil {
		return usageError(c, err.Error())
	}
	return withStoreToRemove(c, func(s *session) error {
		if !c.Bool("force") && !opts.dryRun {
			yes, err := confirm(c.Context, c.App.Reader, c.App.ErrWriter, what(opts.all))
			if err != nil || !yes {
				return err
			}
		}
		var freed int64
		var errs []error
		for _, p := range pruners {
			n, err := p(c.Context, c.App.Writer, s.store, opts)
			freed += n
			errs = append(errs, err)
		}
		label := "Total reclaimed space: "
		if opts.dryRun {
			label = "Total reclaimable space: "
		}
		_, err := fmt.Fprintln(c.App.Writer, label+humanSize(freed))
		return errors.Join(append(errs, err)...)
	})
}

func newPruneOptions(c *cli.Context, now time.Time) (pruneOptions, error) {
	opts := pruneOptions{all: c.Bool("all"), dryRun: c.Bool("dry-run")}
	for _, f := range c.StringSlice("filter") {
		if err := opts.filter(f, now); err != nil {
			return opts, err
		}
	}
	for name, to := range map[string]*int64{
		reservedFlag: &opts.bounds.Reserved, maxUsedFlag: &opts.bounds.MaxUsed, minFreeFlag: &opts.bounds.MinFree,
	} {
		size := c.String(name)
		if size == "" {
			continue
		}
		bytes, err := parseSize(name, size)
		if err != nil {
			return opts, err
		}
		*to = bytes
	}
	return opts, nil
}

// filter adds one value KEY=VALUE of --filter.
func (o *pruneOptions) filter(f string, now time.Time) (err error) {
	key, value, _ := strings.Cut(f, "=")
	switch key {
	case "until":
		o.until, err = parseUntil(value, now)
	case "label":
		o.filters = append(o.filters, imageFilter{key, value})
	case "type":
		kind, err := cacheType(value)
		if err != nil {
			return err
		}
		o.types = append(o.types, kind)
	case "id":
		o.ids = append(o.ids, strings.TrimPrefix(value, "sha256:"))
	default:
		return fmt.Errorf("invalid filter %q: it is until, label, type or id", f)
	}
	return err
}

// cacheType parses the value of the filter type=.
func cacheType(value string) (string, error) {
	switch value {
	case typeStep, typeMount, typeSource:
		return value, nil
	case "source.git.checkout", "source.http":
		return typeSource, nil
	}
	return "", fmt.Errorf("invalid filter type=%s: it is %s, %s or %s", value, typeStep, typeMount, typeSource)
}

// confirm asks the user for permission. It reports true only for the answers y and yes.
func confirm(ctx context.Context, in io.Reader, w io.Writer, what string) (bool, error) {
	if _, err := fmt.Fprintf(w, "WARNING! This will remove %s.\nAre you sure you want to continue? [y/N] ", what); err != nil {
		return false, err
	}
	answers := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			line = ""
		}
		answers <- line
	}()
	select {
	case line := <-answers:
		answer := strings.ToLower(strings.TrimSpace(line))
		return answer == "y" || answer == "yes", nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// pruneFetched removes sources and cache mounts, which steps can fetch again. It must
// run before the other pruners: it needs no disk space, but removing images and layers
// does.
func pruneFetched(_ context.Context, w io.Writer, store *storage.Store, opts pruneOptions) (int64, error) {
	built, err := openCache(store)
	if err != nil {
		return 0, err
	}
	return pruneFetchedOf(w, built, opts)
}

// pruneFetchedOf removes the sources and cache mounts that opts select.
func pruneFetchedOf(w io.Writer, built buildCache, opts pruneOptions) (freed int64, err error) {
	opts, some, err := opts.bound(built)
	if err != nil || !some {
		return 0, err
	}
	if opts.takes(typeSource) && len(opts.ids) == 0 {
		if freed, err = pruneSources(w, built, opts); err != nil {
			return freed, err
		}
	}
	if opts.takes(typeMount) {
		n, err := pruneMounts(w, built, opts)
		return freed + n, err
	}
	return freed, nil
}

func pruneStepsOfStore(ctx context.Context, w io.Writer, store *storage.Store, opts pruneOptions) (int64, error) {
	built, err := openCache(store)
	if err != nil {
		return 0, err
	}
	return pruneSteps(ctx, w, built, opts)
}

func pruneSteps(ctx context.Context, w io.Writer, built buildCache, opts pruneOptions) (freed int64, err error) {
	if !opts.takes(typeStep) {
		return 0, nil
	}
	opts, some, err := opts.bound(built)
	if err != nil || !some {
		return 0, err
	}
	policy := cache.Policy{Until: opts.until, DryRun: opts.dryRun}
	if len(opts.ids) > 0 {
		policy.Match = func(u cache.Usage) bool { return opts.named(u.Layer) }
	}
	removed, err := built.PruneSteps(ctx, policy)
	for _, u := range removed {
		freed += max(0, u.Size)
		if _, printErr := fmt.Fprintf(w, "Deleted build cache: %s %s\n", shortID(u.Layer), u.Description); printErr != nil {
			return freed, printErr
		}
	}
	return freed, err
}

// pruneSources removes git repositories and downloads.
func pruneSources(w io.Writer, built buildCache, opts pruneOptions) (freed int64, err error) {
	removed, err := built.PruneSources(shelf.Policy{
		KeepEntries: math.MaxInt, Until: opts.until, DryRun: opts.dryRun,
	})
	for _, u := range removed {
		freed += u.Size
		if _, printErr := fmt.Fprintf(w, "Deleted source: %s\n", shortID(u.Name)); printErr != nil {
			return freed, printErr
		}
	}
	return freed, err
}

// pruneMounts removes cache mounts that no step uses, least recently used first.
func pruneMounts(w io.Writer, built buildCache, opts pruneOptions) (freed int64, err error) {
	mounts, err := built.Mounts()
	if err != nil {
		return 0, err
	}
	mounts = slices.SortedFunc(slices.Values(mounts), func(a, b cachemount.Mount) int { return a.Used.Compare(b.Used) })
	for _, m := range mounts {
		if !usedBefore(m.Used, opts.until) || !opts.namesMount(m) {
			continue
		}
		removed := opts.dryRun && !m.InUse
		if !opts.dryRun {
			if removed, err = built.RemoveMount(m); err != nil {
				return freed, err
			}
		}
		if !removed {
			continue
		}
		freed += m.Size
		if _, err := fmt.Fprintf(w, "Deleted cache mount: %s\n", mountTitle(m)); err != nil {
			return freed, err
		}
	}
	return freed, nil
}
