package explain

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

func facts(list ...string) *Facts {
	f := &Facts{}
	for i := 0; i < len(list); i += 3 {
		f.Add(Kind(list[i]), list[i+1], []byte(list[i+2]))
	}
	return f
}

func TestCompare(t *testing.T) {
	base := []string{"command", "", "make", "variable", "CC", "gcc", "file", "b.c", "1", "file", "a.c", "1", "input", "[1/3] FROM x", "sha"}
	tests := map[string]struct {
		was, now []string
		want     []string
	}{
		"same":     {base, base, nil},
		"command":  {base, append([]string{"command", "", "make all"}, base[3:]...), []string{"the command changed"}},
		"new":      {nil, []string{"file", "x", "1", "variable", "A", "1"}, []string{"variable A is new", "file x is new"}},
		"gone":     {base, base[:12], []string{"the result of [1/3] FROM x is gone"}},
		"setting":  {[]string{"setting", "user", "a"}, []string{"setting", "user", "b"}, []string{"the user changed"}},
		"in order": {base, []string{"file", "b.c", "2", "file", "a.c", "2", "command", "", "make", "variable", "CC", "gcc", "input", "[1/3] FROM x", "sha"}, []string{"file a.c changed", "file b.c changed"}},
		"twice":    {[]string{"file", "x", "1"}, []string{"file", "x", "1", "file", "x", "1"}, []string{"file x changed"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Compare(facts(tt.was...), facts(tt.now...)); !slices.Equal(got, tt.want) {
				t.Errorf("changes %q, want %q", got, tt.want)
			}
		})
	}
}

func TestSentence(t *testing.T) {
	for want, changes := range map[string][]string{
		"":                   nil,
		"a, b, c, d":         {"a", "b", "c", "d"},
		"a, b, c and 2 more": {"a", "b", "c", "d", "e"},
	} {
		if got := Sentence(changes); got != want {
			t.Errorf("%q of %q, want %q", got, changes, want)
		}
	}
}

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "explain")
	s := NewStore(dir, "project")
	if f, err := s.Load("slot"); f != nil || err != nil {
		t.Fatalf("Load of nothing = %v, %v", f, err)
	}
	want := facts("file", "with \"quotes\"\nand lines", "1", "command", "", "x")
	if err := s.Save("slot", want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load("slot")
	if err != nil {
		t.Fatal(err)
	}
	if changes := Compare(want, got); got.Len() != want.Len() || len(changes) > 0 {
		t.Errorf("read back with changes %q", changes)
	}
	if f, err := NewStore(dir, "other").Load("slot"); f != nil || err != nil {
		t.Errorf("another project sees %v, %v", f, err)
	}
	if err := s.Tidy(time.Now()); err != nil {
		t.Fatal(err)
	}
	if f, _ := s.Load("slot"); f == nil {
		t.Error("fresh facts were swept")
	}
	if err := s.Tidy(time.Now().Add(maxAge + time.Hour)); err != nil {
		t.Fatal(err)
	}
	if f, _ := s.Load("slot"); f != nil {
		t.Error("old facts were not swept")
	}
	if err := os.WriteFile(s.path("slot"), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load("slot"); err == nil {
		t.Error("garbage was read without error")
	}
}

func TestManyFacts(t *testing.T) {
	many := func(last string) *Facts {
		f := &Facts{}
		for i := range maxFacts + 10 {
			f.Add(File, strconv.Itoa(i), []byte(strconv.Itoa(i)))
		}
		f.Add(File, "last", []byte(last))
		return f
	}
	a, b := many("1"), many("2")
	if a.Len() > maxFacts+1 {
		t.Errorf("%d facts are kept", a.Len())
	}
	if got := Compare(a, b); !slices.Equal(got, []string{"file more of them changed"}) {
		t.Errorf("changes %q", got)
	}
}

func FuzzDecode(f *testing.F) {
	var buf bytes.Buffer
	if err := encode(&buf, facts("file", "a", "1")); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decode(bytes.NewReader(data))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := encode(&again, got); err != nil {
			t.Fatal(err)
		}
		back, err := decode(&again)
		if err != nil || len(Compare(got, back)) > 0 {
			t.Errorf("written and read again: %v", err)
		}
	})
}
