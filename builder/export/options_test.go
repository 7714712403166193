package export

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shale-build/shale/storage/blobs"
)

func TestParseImage(t *testing.T) {
	level, at := 3, time.Unix(7, 0).UTC()
	tests := []struct {
		name  string
		attrs map[string]string
		want  ImageOptions
		left  map[string]string
		err   string
	}{
		{name: "none", want: ImageOptions{Compression: Compression{Form: blobs.Form{Type: blobs.Gzip}}}, left: map[string]string{}},
		{
			name: "all",
			attrs: map[string]string{
				"compression": "zstd", "compression-level": "3", "force-compression": "", "oci-mediatypes": "false", "rewrite-timestamp": "true",
				"source-date-epoch": "7", "oci-artifact": "false", "prefer-nondist-layers": "true", "unpack": "true", "push": "x",
			},
			want: ImageOptions{
				Docker: true, Compression: Compression{Form: blobs.Form{Type: blobs.Zstd, Level: &level}, Force: true}, RewriteTimestamp: true, Epoch: &Epoch{Time: &at},
			},
			left: map[string]string{"push": "x"},
		},
		{name: "no epoch", attrs: map[string]string{"source-date-epoch": ""}, want: ImageOptions{Compression: Compression{Form: blobs.Form{Type: blobs.Gzip}}, Epoch: &Epoch{}}, left: map[string]string{}},
		{name: "compression", attrs: map[string]string{"compression": "xz"}, err: "unsupported compression type xz"},
		{name: "level", attrs: map[string]string{"compression-level": "high"}, err: `non-integer value high specified for compression-level: strconv.ParseInt: parsing "high": invalid syntax`},
		{name: "level of gzip", attrs: map[string]string{"compression-level": "10"}, err: "compression-level 10 is not one of gzip: use 0 to 9"},
		{name: "bool", attrs: map[string]string{"oci-mediatypes": "no"}, err: `non-bool value specified for oci-mediatypes: strconv.ParseBool: parsing "no": invalid syntax`},
		{name: "epoch", attrs: map[string]string{"source-date-epoch": "now"}, err: `invalid source-date-epoch "now": want seconds since 1970`},
		{
			name: "estargz without OCI", attrs: map[string]string{"compression": "estargz", "oci-mediatypes": "false"},
			err: `exporter option "compression=estargz" conflicts with "oci-mediatypes=false"`,
		},
		{name: "annotation kind", attrs: map[string]string{"annotation-foo.a": "b"}, err: "option annotation-foo.a: unrecognized annotation type foo"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, left, err := ParseImage(test.attrs, false)
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("error %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.left, left); diff != "" {
				t.Errorf("left over (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseFiles(t *testing.T) {
	no := false
	got, left, err := ParseFiles(map[string]string{"platform-split": "false", "mode": "Delete", "src": "/a", "attestation-prefix": "x", "other": "y"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(FilesOptions{Split: &no, Delete: true, Source: "/a"}, got); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"other": "y"}, left); diff != "" {
		t.Errorf("left over (-want +got):\n%s", diff)
	}
	for _, attrs := range []map[string]string{{"mode": "move"}, {"platform-split": "maybe"}, {"src": ""}, {"source-date-epoch": "x"}} {
		if _, _, err := ParseFiles(attrs); err == nil {
			t.Errorf("%v was accepted", attrs)
		}
	}
}
