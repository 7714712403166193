package main

import (
	"io"
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
			failed, err := run(totals, "unit", false, false, strings.NewReader(test.events), &out)
			if err != nil {
				t.Fatal(err)
			}
			if failed != test.failed {
				t.Errorf("failed = %v, want %v; output:\n%s", failed, test.failed, out.String())
			}
			var sum strings.Builder
			if failed, err = run(totals, "", true, false, nil, &sum); err != nil || failed != test.failed {
				t.Errorf("sum: failed %v, error %v", failed, err)
			}
			if sum.String() != test.want {
				t.Errorf("sum %q, want %q", sum.String(), test.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	events := `{"Action":"run","Package":"p","Test":"T/go"}
{"Action":"output","Package":"p","Test":"T/go","Output":"        measured first 1m2.5s\n"}
{"Action":"output","Package":"p","Test":"T/go","Output":"        measured again 40ms\n"}
{"Action":"pass","Package":"p","Test":"T/go"}
{"Action":"run","Package":"p","Test":"T/c"}
{"Action":"output","Package":"p","Test":"T/c","Output":"        measured first 2s\n"}
{"Action":"output","Package":"p","Test":"T/c","Output":"> exec echo measured\n"}
{"Action":"fail","Package":"p","Test":"T/c"}
{"Action":"pass","Package":"p","Test":"T/quiet"}
`
	r, err := read(strings.NewReader(events), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := r.writeTable("examples", &out); err != nil {
		t.Fatal(err)
	}
	const want = `examples, seconds  first  again  result
c                  2.00   -      FAIL
go                 62.50  0.04   ok
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}
