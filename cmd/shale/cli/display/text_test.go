package display

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTextOnTerminals(t *testing.T) {
	const evil = "\x1b]0;evil\x07 ä\tb\n"
	terminal := openTerminal(t)
	w := Text(terminal.slave)
	if n, err := io.WriteString(w, evil); err != nil || n != len(evil) {
		t.Fatalf("wrote %d bytes of %d: %v", n, len(evil), err)
	}
	if Raw(w) != terminal.slave {
		t.Error("Raw is not what Text was given")
	}
	if got := terminal.screen(t); !strings.Contains(got, "^[]0;evil^G ä") || strings.ContainsRune(got, 0x1b) {
		t.Errorf("the terminal got %q", got)
	}
}

func TestTextElsewhere(t *testing.T) {
	const evil = "\x1b]0;evil\x07\n"
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var buffer bytes.Buffer
	for _, w := range []io.Writer{f, &buffer} {
		if _, err := io.WriteString(Text(w), evil); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil || string(data) != evil || buffer.String() != evil {
		t.Errorf("a file got %q (%v), a pipe %q", data, err, buffer.String())
	}
}
