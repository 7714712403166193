package main

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	for _, test := range []struct {
		name, events, want string
		failed             bool
	}{
		{
			name: "subtests stand for their parent",
			events: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"run","Package":"p","Test":"A/y"}
{"Action":"pass","Package":"p","Test":"A/y"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p","Elapsed":1}`,
			want: "2 passed, 0 failed\n",
		},
		{
			name: "a parent that fails by itself counts",
			events: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/x"}
{"Action":"pass","Package":"p","Test":"A/x"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`,
			want: "1 passed, 1 failed\n", failed: true,
		},
		{
			name: "a test that never ended failed",
			events: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`,
			want: "0 passed, 1 failed\n", failed: true,
		},
		{
			name: "a package that does not compile failed",
			events: `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: no\n"}
{"Action":"fail","Package":"p"}`,
			want: "0 passed, 1 failed\n", failed: true,
		},
		{name: "nothing ran", events: "", want: "0 passed, 0 failed\n", failed: true},
		{
			name: "skips are told",
			events: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"skip","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"B"}
{"Action":"pass","Package":"p","Test":"B"}
{"Action":"pass","Package":"p"}`,
			want: "1 skipped\n1 passed, 0 failed\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			totals := filepath.Join(t.TempDir(), "totals")
			var out strings.Builder
			failed, err := run(totals, "unit", false, strings.NewReader(test.events), &out)
			if err != nil {
				t.Fatal(err)
			}
			if failed != test.failed {
				t.Errorf("failed = %v, want %v; output:\n%s", failed, test.failed, out.String())
			}
			var sum strings.Builder
			if failed, err = run(totals, "", true, nil, &sum); err != nil || failed != test.failed {
				t.Errorf("sum: failed %v, error %v", failed, err)
			}
			if sum.String() != test.want {
				t.Errorf("sum %q, want %q", sum.String(), test.want)
			}
		})
	}
}
