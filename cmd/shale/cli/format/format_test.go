package format

import (
	"bytes"
	"strings"
	"testing"
)

type row struct {
	ID   string
	Size string
}

var listing = Listing{
	Columns: "{{.ID}}\t{{.Size}}",
	Headers: Headers{"ID": "IMAGE ID", "Size": "SIZE"},
}

func TestWrite(t *testing.T) {
	rows := []row{{"0123456789ab", "1.2MB"}, {"<none>", "0B"}}
	tests := map[string]struct{ format, want string }{
		"default":  {"", "IMAGE ID       SIZE\n0123456789ab   1.2MB\n<none>         0B\n"},
		"table":    {"table", "IMAGE ID       SIZE\n0123456789ab   1.2MB\n<none>         0B\n"},
		"columns":  {`table {{.Size}}\t{{.ID}}`, "SIZE      IMAGE ID\n1.2MB     0123456789ab\n0B        <none>\n"},
		"template": {"{{.ID}}={{lower .Size}}", "0123456789ab=1.2mb\n<none>=0b\n"},
		"json":     {"json", "{\"ID\":\"0123456789ab\",\"Size\":\"1.2MB\"}\n{\"ID\":\"<none>\",\"Size\":\"0B\"}\n"},
		"jsonfunc": {"{{json .}}", "{\"ID\":\"0123456789ab\",\"Size\":\"1.2MB\"}\n{\"ID\":\"<none>\",\"Size\":\"0B\"}\n"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Write(&b, listing, tc.format, rows); err != nil {
				t.Fatal(err)
			}
			if b.String() != tc.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), tc.want)
			}
		})
	}
}

func TestWriteErrors(t *testing.T) {
	for format, want := range map[string]string{
		"{{.ID":       "parse --format: format:1: unclosed action",
		"{{.Nobody}}": "can't evaluate field Nobody",
	} {
		err := Write(&bytes.Buffer{}, listing, format, []row{{}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("format %q: error %v, want %q", format, err, want)
		}
	}
}

func TestFunctions(t *testing.T) {
	data := map[string]any{"List": []string{"a", "b"}, "Text": "éa b", "Map": map[string]string{"k": "<v>"}}
	for text, want := range map[string]string{
		`{{json .Map}}`:                 `{"k":"<v>"}`,
		`{{join .List ","}}`:            "a,b",
		`{{index (split .Text " ") 1}}`: "b",
		`{{title .Text}}`:               "Éa b",
		`{{upper .Text}}`:               "ÉA B",
		`{{pad .Text 1 2}}|`:            " éa b  |",
		`{{truncate .Text 2}}`:          "éa",
	} {
		tmpl, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := Execute(&b, tmpl, data); err != nil {
			t.Fatal(err)
		}
		if b.String() != want+"\n" {
			t.Errorf("%s gives %q, want %q", text, b.String(), want)
		}
	}
}

func TestEllipsis(t *testing.T) {
	for _, tc := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"äöüß", 3, "äö…"}, {"", 3, ""}} {
		if got := Ellipsis(tc.in, tc.n); got != tc.want {
			t.Errorf("Ellipsis(%q, %d) = %q, want %q", tc.in, tc.n, got, tc.want)
		}
	}
}
