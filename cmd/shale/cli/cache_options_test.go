package cli

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseCache(t *testing.T) {
	for value, want := range map[string]struct {
		kind  string
		attrs map[string]string
	}{
		"example.com/team/cache:main":              {"registry", map[string]string{"ref": "example.com/team/cache:main"}},
		"type=registry,ref=x,mode=max":             {"registry", map[string]string{"ref": "x", "mode": "max"}},
		`type=local,"dest=a,b",compression=zstd`:   {"local", map[string]string{"dest": "a,b", "compression": "zstd"}},
		"type=inline":                              {"inline", map[string]string{}},
		"inline":                                   {"inline", map[string]string{}},
		"TYPE=registry,Ref=Example.com/x,max-age=": {"registry", map[string]string{"ref": "Example.com/x", "max-age": ""}},
	} {
		t.Run(value, func(t *testing.T) {
			kind, attrs, err := parseCache(value)
			if err != nil || kind != want.kind {
				t.Fatalf("type %q, %v, want %q", kind, err, want.kind)
			}
			if diff := cmp.Diff(want.attrs, attrs); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
		})
	}
	for _, value := range []string{"ref=x", "type=s3,bucket=x", "type=registry,x", "=x"} {
		if _, _, err := parseCache(value); err == nil {
			t.Errorf("%q is accepted", value)
		}
	}
}

func TestParseGrace(t *testing.T) {
	for value, want := range map[string]time.Duration{"20s": 20 * time.Second, "0s": 0, "0": 0, "1m30s": 90 * time.Second, "-1s": -1, "20": -1, "": -1} {
		got, err := parseGrace(value)
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
}
