package secrets

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	tests := map[string]Source{
		"id=a":                       {ID: "a"},
		"id=a,src=f":                 {ID: "a", File: "f"},
		"id=a,source=f=g":            {ID: "a", File: "f=g"},
		"ID=a,SRC=f":                 {ID: "a", File: "f"},
		"id=a,env=E":                 {ID: "a", Env: "E"},
		"id=a,type=env,src=E":        {ID: "a", Env: "E"},
		"type=env,id=a,env=E,src=f":  {ID: "a", Env: "E", File: "f"},
		"id=a,type=file,src=f":       {ID: "a", File: "f"},
		"type=env,id=a":              {ID: "a"},
		`id=a,"src=with,comma"`:      {ID: "a", File: "with,comma"},
		"type=file,id=a,src=,env=":   {ID: "a"},
		"id=first,id=second,src=any": {ID: "second", File: "any"},
	}
	for value, want := range tests {
		if got, err := Parse(value); err != nil || got != want {
			t.Errorf("%s gives %+v, %v; want %+v", value, got, err, want)
		}
	}
	for value, want := range map[string]string{
		"":                "parse csv secret",
		"a":               "invalid field 'a' must be a key=value pair",
		"src=f":           "secret missing ID",
		"id=a,type=vault": `unsupported secret type "vault"`,
		"id=a,mode=0400":  "unexpected key 'mode' in 'mode=0400'",
		`id=a,"src=f`:     "parse csv secret",
	} {
		if got, err := Parse(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %+v, %v; want the error %q", value, got, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("id=a,src=b")
	f.Add(`"id=a,b",type=env`)
	f.Fuzz(func(t *testing.T, value string) {
		if s, err := Parse(value); err == nil && s.ID == "" {
			t.Errorf("%q has no ID", value)
		}
	})
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := func(name string) (string, bool) {
		v, ok := map[string]string{"VAR": "from env", "both": "variable", "EMPTY": ""}[name]
		return v, ok
	}
	write("both", "file")
	write("bare", "bare file")
	st, err := New([]Source{
		{ID: "file", File: write("f", "a\x00b\n")},
		{ID: "env", Env: "VAR"},
		{ID: "unset", Env: "NOT_SET"},
		{ID: "both"},
		{ID: "bare"},
		{ID: "twice", Env: "VAR"},
		{ID: "twice", File: write("second", "second")},
		{ID: "largest", File: write("largest", strings.Repeat("x", MaxSize))},
	}, env)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{
		"file": "a\x00b\n", "env": "from env", "unset": "", "both": "variable", "bare": "bare file", "twice": "second",
		"largest": strings.Repeat("x", MaxSize),
	} {
		if got, err := st.Get(id); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", id, got, err, want)
		}
	}
	if got := st.IDs(); !slices.Equal(got, []string{"bare", "both", "env", "file", "largest", "twice", "unset"}) {
		t.Errorf("IDs are %q", got)
	}
	for _, st := range []*Store{st, nil, {}} {
		if _, err := st.Get("none"); !errors.Is(err, ErrNotFound) || err.Error() != "secret none: not found" {
			t.Errorf("error %v", err)
		}
	}
}

func TestStoreRefusesAtOnce(t *testing.T) {
	dir := t.TempDir()
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, MaxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	none := func(string) (string, bool) { return "", false }
	for want, s := range map[string]Source{
		"secret x too big. max size 500KB": {ID: "x", File: big},
		"no such file or directory":        {ID: "x", File: filepath.Join(dir, "none")},
		"is a directory":                   {ID: "x", File: dir},
	} {
		if _, err := New([]Source{s}, none); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", s, err, want)
		}
	}
}

// A pipe, for example of <(command), can be read only once, but several steps may use the
// secret.
func TestStoreReadsOnce(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"piped", strings.Repeat("x", MaxSize+1)} {
		st, err := New([]Source{{ID: "s", File: fifo}}, os.LookupEnv)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
			if err == nil {
				_, _ = w.WriteString(content)
				_ = w.Close()
			}
		}()
		for range 2 {
			got, err := st.Get("s")
			switch {
			case len(content) > MaxSize:
				if err == nil {
					t.Error("a pipe gives more than a file may hold")
				}
			case err != nil || string(got) != content:
				t.Errorf("got %q, %v", got, err)
			}
		}
	}
}
