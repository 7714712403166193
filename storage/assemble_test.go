package storage

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// memory has the same content for every file.
type memory string

func (m memory) open(name string) (io.ReadCloser, error) {
	if name == "none" {
		return nil, errors.New("no such file")
	}
	return io.NopCloser(strings.NewReader(string(m))), nil
}

func TestAssembler(t *testing.T) {
	tests := map[string]struct {
		recipe, want, wantErr string
	}{
		"nothing":        {"", "", ""},
		"bytes and file": {`{"type":2,"payload":"aGVhZA=="}{"type":1,"name":"f","size":3}{"type":2,"payload":"ZW5k"}`, "head012end", ""},
		"no payload":     {`{"type":1,"name":"none","size":0}{"type":2,"payload":"ZW5k"}`, "end", ""},
		"short file":     {`{"type":1,"name":"f","size":30}`, "0123456789", "bytes short"},
		"missing file":   {`{"type":2,"payload":"aGVhZA=="}{"type":1,"name":"none","size":1}`, "head", "no such file"},
		"negative":       {`{"type":1,"name":"f","size":-1}`, "", "file of -1 bytes"},
		"unknown type":   {`{"type":7}`, "", "type 7"},
		"not JSON":       {`{"type":`, "", "tar-split"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := io.ReadAll(newAssembler(strings.NewReader(test.recipe), memory("0123456789")))
			if string(got) != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			switch {
			case test.wantErr == "" && err != nil:
				t.Error(err)
			case test.wantErr != "" && (!errors.Is(err, ErrCorruptLayer) || !strings.Contains(err.Error(), test.wantErr)):
				t.Errorf("error = %v, want %q", err, test.wantErr)
			}
		})
	}
}

func FuzzAssembler(f *testing.F) {
	f.Add([]byte(`{"type":2,"payload":"aGVhZA=="}{"type":1,"name":"f","size":3}`))
	f.Add([]byte(`{"type":1,"name_raw":"Lw==","size":9223372036854775807}`))
	f.Fuzz(func(t *testing.T, recipe []byte) {
		_, err := io.Copy(io.Discard, newAssembler(bytes.NewReader(recipe), memory("0123456789")))
		if err != nil && !errors.Is(err, ErrCorruptLayer) {
			t.Errorf("error %v does not say that the layer is corrupt", err)
		}
	})
}

func TestMountPoint(t *testing.T) {
	tests := map[string]struct{ line, want string }{
		"plain":   {"36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw", "/mnt2"},
		"escaped": {`36 35 98:0 / /a\040b\134c rw - tmpfs none rw`, `/a b\c`},
		"odd":     {`36 35 98:0 / /a\09 rw - tmpfs none rw`, `/a\09`},
		"short":   {"36 35", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, _ := mountPoint(test.line); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
