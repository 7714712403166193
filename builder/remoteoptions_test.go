package builder

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shale-build/shale/builder/export"
	"github.com/shale-build/shale/storage/blobs"
)

func TestReadCacheExport(t *testing.T) {
	type attrs = map[string]string
	level := 3
	tests := map[string]struct {
		kind  string
		attrs attrs
		want  cacheTarget
	}{
		"registry": {"registry", attrs{"ref": "example.com/app"}, cacheTarget{where: "example.com/app:latest"}},
		"all that buildx has": {
			"registry",
			attrs{
				"ref": "example.com/app:cache", "mode": "max", "image-manifest": "true", "oci-mediatypes": "true",
				"compression": "zstd", "compression-level": "3", "force-compression": "true", "ignore-error": "true",
			},
			cacheTarget{
				where: "example.com/app:cache", max: true, ignoreError: true,
				compression: export.Compression{Form: blobs.Form{Type: blobs.Zstd, Level: &level}, Force: true},
			},
		},
		"local":        {"local", attrs{"dest": "/c", "tag": "v"}, cacheTarget{where: "/c", tag: "v"}},
		"without tag":  {"local", attrs{"dest": "/c"}, cacheTarget{where: "/c", tag: "latest"}},
		"bounds":       {"local", attrs{"dest": "/c", "max-age": "2h", "max-size": "1k"}, cacheTarget{where: "/c", tag: "latest", maxAge: 2 * time.Hour, maxSize: 1024}},
		"mounts":       {"local", attrs{"dest": "/c", "mounts": "true"}, cacheTarget{where: "/c", tag: "latest", mounts: mountChoice{all: true}}},
		"some mounts":  {"local", attrs{"dest": "/c", "mounts": "a,/b/"}, cacheTarget{where: "/c", tag: "latest", mounts: mountChoice{ids: []string{"a", "b"}}}},
		"inline":       {"inline", attrs{"mode": "min"}, cacheTarget{onSuccess: true}},
		"in any case":  {"local", attrs{"dest": "/c", "on": "always"}, cacheTarget{where: "/c", tag: "latest"}},
		"on success":   {"local", attrs{"dest": "/c", "on": "success"}, cacheTarget{where: "/c", tag: "latest", onSuccess: true}},
		"docker's hub": {"registry", attrs{"ref": "app"}, cacheTarget{where: "docker.io/library/app:latest"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readCacheExport(CacheExport{Type: tt.kind, Attrs: maps.Clone(tt.attrs)})
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if want.maxAge == 0 {
				want.maxAge, want.maxSize = cacheMaxAge, cacheMaxSize
			}
			if want.compression.Type == "" {
				want.compression.Type = blobs.Gzip
			}
			if got.where != want.where || got.tag != want.tag || got.max != want.max || got.ignoreError != want.ignoreError || got.onSuccess != want.onSuccess ||
				got.maxAge != want.maxAge || got.maxSize != want.maxSize {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if c := got.compression; c.Type != want.compression.Type || c.Force != want.compression.Force ||
				(c.Level == nil) != (want.compression.Level == nil) {
				t.Errorf("compression is %+v", c)
			}
			if got.mounts.all != want.mounts.all || !slices.Equal(got.mounts.ids, want.mounts.ids) {
				t.Errorf("mounts are %+v", got.mounts)
			}
		})
	}
}

func TestRefusedCacheOptions(t *testing.T) {
	type attrs = map[string]string
	for want, e := range map[string]CacheExport{
		"it needs ref=NAME":                {Type: "registry", Attrs: attrs{}},
		"invalid ref":                      {Type: "registry", Attrs: attrs{"ref": "A:B:C"}},
		"it needs dest=DIRECTORY":          {Type: "local", Attrs: attrs{}},
		"an image has room":                {Type: "inline", Attrs: attrs{"mode": "max"}},
		"on=always is not possible":        {Type: "inline", Attrs: attrs{"on": "always"}},
		`on "failure" is not known`:        {Type: "local", Attrs: attrs{"dest": "/c", "on": "failure"}},
		"no room for cache mounts":         {Type: "inline", Attrs: attrs{"mounts": "x"}},
		`mode "most" is not known`:         {Type: "local", Attrs: attrs{"dest": "/c", "mode": "most"}},
		"oci-mediatypes=false":             {Type: "local", Attrs: attrs{"dest": "/c", "oci-mediatypes": "false"}},
		"image-manifest=false":             {Type: "local", Attrs: attrs{"dest": "/c", "image-manifest": "false"}},
		"unsupported compression":          {Type: "local", Attrs: attrs{"dest": "/c", "compression": "lzma"}},
		"is no duration":                   {Type: "local", Attrs: attrs{"dest": "/c", "max-age": "old"}},
		"is no size":                       {Type: "local", Attrs: attrs{"dest": "/c", "max-size": "big"}},
		"has an empty name":                {Type: "local", Attrs: attrs{"dest": "/c", "mounts": "a,,b"}},
		`option "colour" is not known`:     {Type: "local", Attrs: attrs{"dest": "/c", "colour": "red"}},
		"use registry, local or inline":    {Type: "oci", Attrs: attrs{}},
		`option "region" is not known`:     {Type: "registry", Attrs: attrs{"ref": "x", "region": "y"}},
		"non-integer value high specified": {Type: "local", Attrs: attrs{"dest": "/c", "compression-level": "high"}},
	} {
		if _, err := readCacheExport(e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v gives %v, want %q", e, err, want)
		}
	}
	for want, i := range map[string]CacheImport{
		"it needs ref=NAME":         {Type: "registry", Attrs: attrs{}},
		"it needs src=DIRECTORY":    {Type: "local", Attrs: attrs{}},
		`option "src" is not known`: {Type: "registry", Attrs: attrs{"ref": "x", "src": "/c"}},
		"use registry or local":     {Type: "inline", Attrs: attrs{}},
	} {
		if _, err := readCacheImport(i); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v gives %v, want %q", i, err, want)
		}
	}
}

func TestCacheImportMounts(t *testing.T) {
	tests := []struct {
		mounts, id string
		want       bool
	}{
		{"", "//root/.cache", true},
		{"true", "/pkg", true},
		{"false", "/pkg", false},
		{"pkg", "/pkg", true},
		{"/root/.cache", "//root/.cache", true},
		{"pkg,other", "/third", false},
		{"ns/pkg", "ns/pkg", true},
	}
	for _, tt := range tests {
		s, err := readCacheImport(CacheImport{Type: "local", Attrs: map[string]string{"src": "/c", "mounts": tt.mounts}})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.mounts.includes(tt.id); got != tt.want {
			t.Errorf("mounts=%s and %q: %v, want %v", tt.mounts, tt.id, got, tt.want)
		}
	}
}
