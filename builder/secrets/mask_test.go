package secrets

import (
	"bytes"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	const pem = "-----BEGIN KEY-----\nAAAABBBBCCCC\nx}\n-----END KEY-----\n"
	tests := map[string]struct {
		values   []string
		in, want string
	}{
		"none":                        {nil, "text", "text"},
		"empty value":                 {[]string{"", " \n"}, "a b\n", "a b\n"},
		"plain":                       {[]string{"hunter2"}, "pw=hunter2;\n", "pw=****;\n"},
		"twice":                       {[]string{"pw"}, "pwpw pw", "******** ****"},
		"white space around it":       {[]string{" token\n"}, "[token]", "[****]"},
		"beginning only":              {[]string{"hunter2"}, "hunter", "hunter"},
		"false start":                 {[]string{"aab"}, "aaab", "a****"},
		"one inside the other":        {[]string{"abc", "abcdef"}, "abcdef abcd", "**** ****d"},
		"shorter at the end":          {[]string{"abc", "abcdef"}, "abcde", "****de"},
		"overlapping":                 {[]string{"abcd", "cdef"}, "xabcdefy", "x****y"},
		"overlapping itself":          {[]string{"aa"}, "aaa", "****"},
		"chain":                       {[]string{"ab", "bc", "cd"}, "abcd", "****"},
		"several lines, whole":        {[]string{pem}, "<" + pem + ">", "<****\n>"},
		"several lines, one":          {[]string{pem}, "AAAABBBBCCCC", "****"},
		"several lines, short one":    {[]string{pem}, "x}", "x}"},
		"several lines, other breaks": {[]string{pem}, strings.ReplaceAll(pem, "\n", "\r\n"), "****\r\n****\r\nx}\r\n****\r\n"},
		"binary":                      {[]string{"\x00\xff\x00"}, "a\x00\xff\x00b", "a****b"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var values [][]byte
			for _, v := range tt.values {
				values = append(values, []byte(v))
			}
			// The result must not depend on how the input is split.
			for size := 1; size <= len(tt.in); size++ {
				var out bytes.Buffer
				w := NewMask(values...).Writer(&out)
				for rest := []byte(tt.in); len(rest) > 0; {
					piece := rest[:min(size, len(rest))]
					if n, err := w.Write(piece); n != len(piece) || err != nil {
						t.Fatalf("wrote %d of %d, %v", n, len(piece), err)
					}
					rest = rest[len(piece):]
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				if got := out.String(); got != tt.want {
					t.Errorf("in pieces of %d: %q, want %q", size, got, tt.want)
				}
			}
		})
	}
}

func TestMaskHoldsBackNoMoreThanNeeded(t *testing.T) {
	var out bytes.Buffer
	w := NewMask([]byte("hunter2")).Writer(&out)
	for _, step := range []struct{ in, want string }{
		{"Password: ", "Password: "},
		{"hunt", "Password: "},
		{"ing", "Password: hunting"},
	} {
		if _, err := w.Write([]byte(step.in)); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != step.want {
			t.Errorf("after %q: %q, want %q", step.in, got, step.want)
		}
	}
}

func FuzzMask(f *testing.F) {
	f.Add("secret", "ret", "my secret", uint8(2))
	f.Fuzz(func(t *testing.T, a, b, text string, size uint8) {
		var whole, pieces bytes.Buffer
		m := NewMask([]byte(a), []byte(b))
		w := m.Writer(&whole)
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		p := m.Writer(&pieces)
		for rest := []byte(text); len(rest) > 0; {
			n := min(int(size)+1, len(rest))
			_, _ = p.Write(rest[:n])
			rest = rest[n:]
		}
		_ = p.Close()
		if whole.String() != pieces.String() {
			t.Errorf("at once %q, in pieces %q", whole.String(), pieces.String())
		}
		for _, v := range []string{a, b} {
			v = strings.TrimSpace(v)
			if v != "" && !strings.ContainsAny(v, "*") && strings.Contains(strings.ReplaceAll(whole.String(), masked, "\x00*"), v) && !strings.Contains(v, "\x00") {
				t.Errorf("%q still holds %q", whole.String(), v)
			}
		}
	})
}
