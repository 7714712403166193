package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/builder/cachemount"
	"github.com/shale-build/shale/builder/gc"
	"github.com/shale-build/shale/storage"
)

func TestListings(t *testing.T) {
	filters := func(values ...string) []imageFilter {
		f, err := parseImageFilters(values)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	images := func(o imagesOptions) func(io.Writer) error {
		o.now = now
		return func(w io.Writer) error { return listImages(w, newFakeStore(), o) }
	}
	history := func(name string, o historyOptions) func(io.Writer) error {
		o.now = now
		return func(w io.Writer) error { return showHistory(w, newFakeStore(), name, o) }
	}
	inspect := func(format string, names ...string) func(io.Writer) error {
		return func(w io.Writer) error { return inspectImages(w, newFakeStore(), names, format) }
	}
	tests := map[string]func(io.Writer) error{
		"images":           images(imagesOptions{}),
		"images_digests":   images(imagesOptions{digests: true}),
		"images_no_trunc":  images(imagesOptions{noTrunc: true}),
		"images_quiet":     images(imagesOptions{quiet: true}),
		"images_json":      images(imagesOptions{format: "json"}),
		"images_template":  images(imagesOptions{format: "{{.Repository}}:{{.Tag}}"}),
		"images_dangling":  images(imagesOptions{filters: filters("dangling=true")}),
		"images_reference": images(imagesOptions{filters: filters("reference=app")}),
		"images_label":     images(imagesOptions{filters: filters("label=stage=prod")}),
		"images_until":     images(imagesOptions{filters: filters("until=1h")}),
		"images_since":     images(imagesOptions{filters: filters("since=base:3")}),
		"history":          history("app", historyOptions{human: true}),
		"history_no_trunc": history("app", historyOptions{human: true, noTrunc: true}),
		"history_plain":    history("app", historyOptions{}),
		"history_quiet":    history("app", historyOptions{quiet: true}),
		"history_json":     history("app", historyOptions{human: true, format: "json"}),
		"history_short":    history(baseID[:12], historyOptions{human: true}),
		"inspect":          inspect("", "app", "sha256:"+baseID),
		"inspect_json":     inspect("json", "app"),
		"inspect_layers":   inspect("{{json .RootFS.Layers}}", "app", looseID),
		"inspect_fields":   inspect(`{{.Id}} {{.ID}} {{index .Config.Labels "stage"}} {{json .Config.Cmd}} {{.Os}}/{{.Architecture}} {{join .RepoTags ","}}`, "app"),
		"df":               func(w io.Writer) error { return showUsage(w, newFakeStore(), newFakeCache(), "") },
		"df_json":          func(w io.Writer) error { return showUsage(w, newFakeStore(), newFakeCache(), "json") },
		"df_verbose":       func(w io.Writer) error { return listCache(w, newFakeCache(), "", now) },
	}
	for name, list := range tests {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := list(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, filepath.Join("testdata", "listings", name+".txt"), b.String())
		})
	}
}

func TestInspectMissing(t *testing.T) {
	var b bytes.Buffer
	err := inspectImages(&b, newFakeStore(), []string{"nobody", "app"}, "{{.Id}}")
	if !errors.Is(err, storage.ErrImageUnknown) || err.Error() != "no such image: nobody" {
		t.Errorf("error %v", err)
	}
	if b.String() != "sha256:"+appID+"\n" {
		t.Errorf("output %q", b.String())
	}
}

func TestFind(t *testing.T) {
	tests := map[string]struct{ id, name string }{
		"app":                                {appID, "localhost/app:latest"},
		"app:latest":                         {appID, "localhost/app:latest"},
		"localhost/app":                      {appID, "localhost/app:latest"},
		"registry.example:5000/team/app:1.0": {appID, "registry.example:5000/team/app:1.0"},
		"base:3":                             {baseID, "docker.io/library/base:3"},
		"docker.io/base:3":                   {baseID, "docker.io/library/base:3"},
		appID:                                {appID, ""},
		"sha256:" + appID:                    {appID, ""},
		appID[:5]:                            {appID, ""},
		"base":                               {},
		"app:2":                              {},
		"zz":                                 {},
		"UPPER":                              {},
		"":                                   {},
	}
	for asked, want := range tests {
		img, name, err := find(newFakeStore(), asked)
		if want.id == "" {
			if !errors.Is(err, storage.ErrImageUnknown) {
				t.Errorf("%q is found as %q, %v", asked, name, err)
			}
			continue
		}
		if err != nil || img.ID != want.id || name != want.name {
			t.Errorf("%q is %s by %q, %v; want %s by %q", asked, shortID(img.ID), name, err, shortID(want.id), want.name)
		}
	}
}

func TestRemove(t *testing.T) {
	dgst := newFakeStore().images[2].Names[1]
	tests := map[string]struct {
		names  []string
		force  bool
		inUse  string
		want   string
		errors string
		left   int
	}{
		"one of two names":  {names: []string{"app"}, want: "Untagged: localhost/app:latest\n", left: 3},
		"both names":        {names: []string{"app", "registry.example:5000/team/app:1.0"}, want: "Untagged: localhost/app:latest\nUntagged: registry.example:5000/team/app:1.0\nDeleted: sha256:" + appID + "\nDeleted: sha256:l1\n", left: 2},
		"digest goes along": {names: []string{"base:3"}, want: "Untagged: docker.io/library/base:3\nUntagged: " + dgst + "\nDeleted: sha256:" + baseID + "\nDeleted: sha256:l0\n", left: 2},
		"by ID":             {names: []string{looseID[:12]}, want: "Deleted: sha256:" + looseID + "\nDeleted: sha256:l2\n", left: 2},
		"ID of two":         {names: []string{appID}, errors: "several repositories", left: 3},
		"ID of two, forced": {names: []string{appID}, force: true, want: "Untagged: localhost/app:latest\nUntagged: registry.example:5000/team/app:1.0\nDeleted: sha256:" + appID + "\nDeleted: sha256:l1\n", left: 2},
		"unknown":           {names: []string{"nobody", looseID}, errors: "no such image: nobody", want: "Deleted: sha256:" + looseID + "\nDeleted: sha256:l2\n", left: 2},
		"unknown, forced":   {names: []string{"nobody"}, force: true, left: 3},
		"in use":            {names: []string{looseID}, inUse: looseID, errors: "image is in use", left: 3},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			store := newFakeStore()
			store.inUse = tc.inUse
			var b bytes.Buffer
			err := removeImages(&b, store, tc.names, tc.force)
			if tc.errors == "" && err != nil || tc.errors != "" && (err == nil || !strings.Contains(err.Error(), tc.errors)) {
				t.Errorf("error %v, want %q", err, tc.errors)
			}
			if diff := cmp.Diff(tc.want, b.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if len(store.images) != tc.left {
				t.Errorf("%d images are left, want %d", len(store.images), tc.left)
			}
		})
	}
}

func TestTag(t *testing.T) {
	store := newFakeStore()
	if err := tagImage(store, "base:3", []string{"mine", "quay.io/a/b:2", "docker.io/x"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"localhost/mine:latest", "quay.io/a/b:2", "docker.io/library/x:latest"}
	if diff := cmp.Diff(want, store.images[2].Names[2:]); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"UPPER", "a@sha256:" + appID, ""} {
		if err := tagImage(store, "base:3", []string{bad}); err == nil {
			t.Errorf("name %q is accepted", bad)
		}
	}
}

func TestPruneImages(t *testing.T) {
	tests := map[string]struct {
		opts  pruneOptions
		inUse string
		left  int
		freed int64
	}{
		"dangling":        {left: 2},
		"dry run":         {opts: pruneOptions{dryRun: true, all: true}, left: 3, freed: 7_801_234},
		"all":             {opts: pruneOptions{all: true}, left: 0, freed: 7_801_234},
		"all, one in use": {opts: pruneOptions{all: true}, inUse: baseID, left: 1, freed: 1_234},
		"old ones":        {opts: pruneOptions{all: true, until: now.Add(-time.Hour)}, left: 1},
		"labelled":        {opts: pruneOptions{all: true, filters: []imageFilter{{"label", "stage"}}}, left: 2, freed: 1_234},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			store := newFakeStore()
			store.inUse = tc.inUse
			freed, err := pruneImagesOf(t.Context(), io.Discard, store, tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			if len(store.images) != tc.left || freed != tc.freed {
				t.Errorf("%d images left, %d bytes freed; want %d, %d", len(store.images), freed, tc.left, tc.freed)
			}
		})
	}
}

// pruneCacheOf does the work of "builder prune".
func pruneCacheOf(ctx context.Context, w io.Writer, built buildCache, opts pruneOptions) (int64, error) {
	fetched, err := pruneFetchedOf(w, built, opts)
	if err != nil {
		return fetched, err
	}
	steps, err := pruneSteps(ctx, w, built, opts)
	return fetched + steps, err
}

func TestPruneCache(t *testing.T) {
	var b bytes.Buffer
	built := newFakeCache()
	opts := pruneOptions{all: true, until: now}
	freed, err := pruneCacheOf(t.Context(), &b, built, opts)
	if err != nil {
		t.Fatal(err)
	}
	if freed != 178_001_234 || len(built.mounts) != 0 || !built.policy.Until.Equal(now) {
		t.Errorf("freed %d with %+v, %d mounts left", freed, built.policy, len(built.mounts))
	}
	built = newFakeCache()
	if _, err := pruneCacheOf(t.Context(), &b, built, pruneOptions{all: true, until: now.Add(-time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if len(built.mounts) != 1 {
		t.Error("a cache mount that was used meanwhile is removed")
	}
}

// TestPruneBounds checks that the least recently used entries are removed, of any kind.
func TestPruneBounds(t *testing.T) {
	first, second, recent := now.Add(-24*time.Hour), now.Add(-2*time.Hour), now.Add(-time.Minute)
	const step, source, rest = 120_000_000, 1234, 3_000_000 + 55_000_000
	tests := map[string]struct {
		bounds gc.Policy
		free   int64
		// want is the time until which steps must be pruned, or zero if no step must be
		// pruned. mounts is the number of cache mounts that must stay.
		want   time.Time
		source bool // must be removed
		mounts int
	}{
		"small enough":         {bounds: gc.Policy{MaxUsed: step + source + rest}, mounts: 1},
		"the oldest step":      {bounds: gc.Policy{MaxUsed: step}, want: first, mounts: 1},
		"a source, too":        {bounds: gc.Policy{MaxUsed: rest}, want: first, source: true, mounts: 1},
		"all":                  {bounds: gc.Policy{MaxUsed: 1}, want: recent, source: true},
		"reserved alone":       {bounds: gc.Policy{Reserved: step}, want: first, mounts: 1},
		"enough is free":       {bounds: gc.Policy{MinFree: 100}, free: 100, mounts: 1},
		"too little is free":   {bounds: gc.Policy{MinFree: 100}, free: 99, want: first, mounts: 1},
		"reserved before free": {bounds: gc.Policy{MinFree: 100, Reserved: step * 2}, free: 1, mounts: 1},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			built := newFakeCache()
			built.free, built.sourceUsed = tc.free, second
			if _, err := pruneCacheOf(t.Context(), io.Discard, built, pruneOptions{all: true, bounds: tc.bounds}); err != nil {
				t.Fatal(err)
			}
			if built.pruned == tc.want.IsZero() || !built.policy.Until.Equal(tc.want) || len(built.mounts) != tc.mounts || built.sourceGone != tc.source {
				t.Errorf("pruned %v until %v, %d mounts left; want %v, %d", built.pruned, built.policy.Until, len(built.mounts), tc.want, tc.mounts)
			}
		})
	}
}

func TestPruneMounts(t *testing.T) {
	old := cachemount.Mount{Key: "0123456789abcdef0123456789abcdef", ID: "/old", Used: now.Add(-3 * time.Hour), Size: 10}
	busy := cachemount.Mount{Key: "123456789abcdef0123456789abcdef0", ID: "/busy", Used: now.Add(-2 * time.Hour), Size: 10, InUse: true}
	recent := cachemount.Mount{Key: "23456789abcdef0123456789abcdef01", ID: "/recent", Used: now, Size: 10}
	tests := map[string]struct {
		filters []string
		keep    int64
		all     bool
		steps   bool
		left    []string
	}{
		"none asked for":    {steps: true, left: []string{"/recent", "/old", "/busy"}},
		"all":               {all: true, steps: true, left: []string{"/busy"}},
		"by type":           {filters: []string{"type=exec.cachemount"}, left: []string{"/busy"}},
		"other types":       {filters: []string{"type=regular", "type=source.http"}, all: true, steps: true, left: []string{"/recent", "/old", "/busy"}},
		"by age":            {filters: []string{"type=exec.cachemount", "until=1h"}, left: []string{"/recent", "/busy"}},
		"by size":           {filters: []string{"type=exec.cachemount"}, keep: 20, left: []string{"/recent", "/busy"}},
		"by name":           {filters: []string{"id=recent", "type=exec.cachemount"}, left: []string{"/old", "/busy"}},
		"by the same ID":    {filters: []string{"id=/recent"}, steps: true, left: []string{"/old", "/busy"}},
		"by start of a key": {filters: []string{"id=012345", "type=exec.cachemount"}, left: []string{"/recent", "/busy"}},
		"too short a start": {filters: []string{"id=0", "type=exec.cachemount"}, left: []string{"/recent", "/old", "/busy"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			opts := pruneOptions{all: tc.all, bounds: gc.Policy{MaxUsed: tc.keep}}
			for _, f := range tc.filters {
				if err := opts.filter(f, now); err != nil {
					t.Fatal(err)
				}
			}
			built := newFakeCache()
			built.mounts = []cachemount.Mount{recent, old, busy}
			if _, err := pruneCacheOf(t.Context(), io.Discard, built, opts); err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, m := range built.mounts {
				left = append(left, m.ID)
			}
			if diff := cmp.Diff(tc.left, left); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			if built.pruned != tc.steps {
				t.Errorf("steps were pruned: %v", built.pruned)
			}
		})
	}
	if err := new(pruneOptions).filter("type=frontend", now); err == nil {
		t.Error("a type that there is not is accepted")
	}
}

func TestDu(t *testing.T) {
	built := newFakeCache()
	built.sourceUsed = now.Add(-3 * time.Hour)
	built.mounts = append(built.mounts, cachemount.Mount{Key: cachemount.Key(strings.Repeat("07", 16)), ID: "/busy", Used: now, Size: 7_000_000, InUse: true})
	tests := map[string]struct {
		filters []string
		format  string
		verbose bool
	}{
		"du":         {},
		"du-verbose": {verbose: true},
		"du-json":    {format: "json", filters: []string{"type=regular"}},
		"du-old":     {filters: []string{"until=2h"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			opts := pruneOptions{all: true}
			for _, f := range tc.filters {
				if err := opts.filter(f, now); err != nil {
					t.Fatal(err)
				}
			}
			rows, err := duRows(built, opts, now)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := writeDu(&b, rows, tc.format, tc.verbose); err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+name+".golden", b.String())
		})
	}
}

func TestParseGC(t *testing.T) {
	def := gc.Default()
	custom := def
	custom.MaxUsed, custom.MinFree, custom.KeepDuration = gc.Amount{Bytes: 5 << 30}, gc.Amount{Percent: 15}, 24*time.Hour
	for value, want := range map[string]*gc.Limits{
		"": &def, "on": &def, "true": &def, "off": nil, "0": nil, "false": nil,
		"max-used-space=5g,min-free-space=15%,keep-duration=24h": &custom,
	} {
		got, err := parseGC(value)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v (-want +got):\n%s", value, err, diff)
		}
	}
	for _, value := range []string{"maybe", "max-used-space", "max-used-space=x", "min-free-space=101%", "keep-duration=2 days", "reserved-space=-1"} {
		if _, err := parseGC(value); err == nil {
			t.Errorf("%q is accepted", value)
		}
	}
}
