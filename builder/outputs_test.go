package builder

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadOutputs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	attrs := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for _, p := range pairs {
			k, v, _ := strings.Cut(p, "=")
			m[k] = v
		}
		return m
	}
	type result struct {
		Title                           string
		Names                           []string
		Store, Push, ByDigest, Insecure bool
		Canonical, DanglingOnly, Layout bool
		Dangling                        string
		Unknown                         []string
	}
	tests := []struct {
		name string
		tags []string
		in   Export
		want result
		err  string
	}{
		{name: "store", tags: []string{"a"}, in: Export{Type: "image"}, want: result{Title: "exporting to image", Names: []string{"a"}, Store: true}},
		{
			name: "push", in: Export{Type: "image", Attrs: attrs("name=a,b", "push", "store=false", "registry.insecure=true", "name-canonical", "dangling-name-prefix=x", "foo=bar")},
			want: result{
				Title: "exporting to image", Names: []string{"a", "b"}, Push: true, Insecure: true, Canonical: true, Dangling: "x",
				Unknown: []string{"foo"},
			},
		},
		{
			name: "registry by digest", in: Export{Type: "registry", Attrs: attrs("name=a", "push-by-digest=true")},
			want: result{Title: "exporting to image", Names: []string{"a"}, Push: true, ByDigest: true},
		},
		{name: "tags win", tags: []string{"t"}, in: Export{Type: "oci", Attrs: attrs("name=n")}, want: result{Title: "exporting to oci image format", Names: []string{"t"}}},
		{name: "docker without a file", in: Export{Type: "docker"}, want: result{Title: "exporting to image", Store: true}},
		{name: "docker", in: Export{Type: "docker", Dest: file}, want: result{Title: "exporting to docker image format"}},
		{name: "layout", in: Export{Type: "oci", Dest: dir, Attrs: attrs("tar=false")}, want: result{Title: "exporting to oci image format", Layout: true}},
		{name: "local", in: Export{Type: "local", Dest: dir, Attrs: attrs("x=y")}, want: result{Title: "exporting to client directory", Unknown: []string{"x"}}},
		{name: "no name to push", in: Export{Type: "registry"}, err: "tag is needed when pushing to registry: give one with -t or name="},
		{
			name: "tag by digest", in: Export{Type: "registry", Attrs: attrs("name=a:1", "push-by-digest=true")},
			err: "can't push tagged ref a:1 by digest: give the name without a tag",
		},
		{name: "type", in: Export{Type: "nonsense"}, err: `output type "nonsense" is not known: use image, local, tar, oci, docker or registry`},
		{name: "bool", in: Export{Type: "image", Attrs: attrs("push=maybe")}, err: `non-bool value specified for push: strconv.ParseBool: parsing "maybe": invalid syntax`},
		{name: "layout without a directory", in: Export{Type: "oci", Dest: "-", Attrs: attrs("tar=false")}, err: "dest is required for oci exporter: it writes a directory"},
		{name: "directory is a file", in: Export{Type: "local", Dest: file}, err: "destination directory " + file + " is a file"},
		{name: "file is a directory", in: Export{Type: "tar", Dest: dir}, err: "destination file " + dir + " is a directory"},
		{name: "name", in: Export{Type: "image", Attrs: attrs("name=A")}, err: `invalid tag "A": invalid reference format: repository name (library/A) must be lowercase`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			outs, err := readOutputs(Options{Tags: test.tags, Exports: []Export{test.in}})
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			o := outs[0]
			got := result{
				Title: o.title(), Names: o.names, Store: o.store, Push: o.push, ByDigest: o.byDigest, Insecure: o.insecure,
				Canonical: o.canonical, DanglingOnly: o.danglingOnly, Layout: o.layout, Dangling: o.dangling, Unknown: o.unknown,
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOutputsByDefault(t *testing.T) {
	outs, err := readOutputs(Options{})
	if err != nil || len(outs) != 1 || !outs[0].store {
		t.Errorf("without -o: %+v, %v", outs, err)
	}
	outs, err = readOutputs(Options{Exports: []Export{{Type: "cacheonly"}}})
	if err != nil || len(outs) != 0 {
		t.Errorf("with type=cacheonly: %+v, %v", outs, err)
	}
}
