package diff_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/vbatts/tar-split/tar/storage"

	"github.com/shale-build/shale/overlay/diff"
)

func TestPlainCapability(t *testing.T) {
	v3 := "\x01\x00\x00\x03" + netRaw[4:] + "\xa0\x86\x01\x00"
	for _, c := range []struct {
		name, in, want string
	}{
		{"revision 1", "\x01\x00\x00\x01" + netRaw[4:12], "\x01\x00\x00\x01" + netRaw[4:12]},
		{"revision 2", netRaw, netRaw},
		{"revision 3", v3, netRaw},
		{"revision 3 without the effective flag", "\x00" + v3[1:], "\x00" + netRaw[1:]},
		{"empty", "", ""},
		{"short", netRaw[:19], ""},
		{"long", netRaw + "x", ""},
		{"revision 3 without root", v3[:20], ""},
		{"revision 4", "\x01\x00\x00\x04" + v3[4:], ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := diff.PlainCapability([]byte(c.in))
			if string(got) != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func FuzzPlainCapability(f *testing.F) {
	f.Add([]byte(netRaw))
	f.Add([]byte("\x01\x00\x00\x03" + netRaw[4:] + "\xa0\x86\x01\x00"))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, in []byte) {
		kept := bytes.Clone(in)
		out, err := diff.PlainCapability(in)
		if !bytes.Equal(kept, in) {
			t.Fatal("the input changed")
		}
		if err != nil {
			return
		}
		if len(out) > 20 || out[3] == 3 {
			t.Errorf("%x is not plain", out)
		}
		if !bytes.Equal(out[4:], in[4:len(out)]) {
			t.Errorf("%x became %x", in, out)
		}
		again, err := diff.PlainCapability(out)
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("%x became %x, then %x, %v", in, out, again, err)
		}
	})
}

// FuzzAppendName compares appendName with the result of encoding/json for the type of
// tar-split.
func FuzzAppendName(f *testing.F) {
	for _, s := range []string{"a/b", "é", "\xff", "<&>\"\\", "\x00\n\x7f", "\u2028", "\ufffd"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if name == "" {
			return // all entries have a name
		}
		e := storage.Entry{Type: storage.FileType}
		e.SetName(name)
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		got := diff.AppendName(nil, name)
		if !strings.HasPrefix(string(want), `{"type":1,`+string(got)+`,"payload"`) {
			t.Errorf("%q: got %s, want %s", name, got, want)
		}
	})
}

func FuzzDirents(f *testing.F) {
	f.Add([]byte("12345678abcdefgh\x18\x00\x08abc\x00\x00\x0012345678abcdefgh\x18\x00\x04..\x00\x00\x00"))
	f.Add([]byte("12345678abcdefgh\x00\x00\x08abc\x00"))
	f.Add([]byte("12345678abcdefgh\xff\xff\x08abc\x00"))
	f.Fuzz(func(t *testing.T, buf []byte) {
		for _, name := range diff.DirentNames(buf) {
			if name == "" || name == "." || name == ".." || strings.Contains(name, "\x00") {
				t.Errorf("name %q", name)
			}
		}
	})
}
