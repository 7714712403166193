package diff

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// tarSplit writes the records from which an archive can be rebuilt with the files in it.
// They are byte for byte the records that github.com/vbatts/tar-split would write when
// reading the archive. Segments (padding and headers) alternate with files (name, size,
// CRC-64 of the contents).
type tarSplit struct {
	file     *os.File
	w        *bufio.Writer
	line     []byte
	segment  []byte
	position int64
}

// newTarSplit creates the file for the records with memfd_create(2).
func newTarSplit() (*tarSplit, error) {
	fd, err := unix.MemfdCreate("tar-split", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), "tar-split")
	return &tarSplit{file: f, w: bufio.NewWriterSize(f, 32<<10)}, nil
}

// addSegment records bytes of the archive that are not contents of a file.
func (t *tarSplit) addSegment(parts ...[]byte) error {
	t.segment = t.segment[:0]
	for _, p := range parts {
		t.segment = append(t.segment, p...)
	}
	t.line = append(t.line[:0], `{"type":2,"payload":"`...)
	t.line = base64.StdEncoding.AppendEncode(t.line, t.segment)
	t.line = append(t.line, '"')
	return t.flush()
}

// addFile records the name in a header and the contents after it. sum is nil if there are
// no contents.
func (t *tarSplit) addFile(name string, size int64, sum []byte) error {
	t.line = append(t.line[:0], `{"type":1,`...)
	t.line = appendName(t.line, name)
	if size > 0 {
		t.line = append(t.line, `,"size":`...)
		t.line = strconv.AppendInt(t.line, size, 10)
	}
	if sum == nil {
		t.line = append(t.line, `,"payload":null`...)
	} else {
		t.line = append(t.line, `,"payload":"`...)
		t.line = base64.StdEncoding.AppendEncode(t.line, sum)
		t.line = append(t.line, '"')
	}
	return t.flush()
}

func (t *tarSplit) flush() error {
	t.line = append(t.line, `,"position":`...)
	t.line = strconv.AppendInt(t.line, t.position, 10)
	t.line = append(t.line, '}', '\n')
	t.position++
	if _, err := t.w.Write(t.line); err != nil {
		return fmt.Errorf("write tar-split records: %w", err)
	}
	return nil
}

// rewind flushes the records and seeks to the start of the file.
func (t *tarSplit) rewind() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write tar-split records: %w", err)
	}
	_, err := t.file.Seek(0, io.SeekStart)
	return err
}

// appendName appends the JSON member with the name. A name that is not UTF-8 uses the
// member name_raw, because JSON strings cannot hold it.
func appendName(line []byte, name string) []byte {
	if !utf8.ValidString(name) {
		line = append(line, `"name_raw":"`...)
		line = base64.StdEncoding.AppendEncode(line, []byte(name))
		return append(line, '"')
	}
	line = append(line, `"name":`...)
	if plainJSON(name) {
		line = append(line, '"')
		line = append(line, name...)
		return append(line, '"')
	}
	quoted, err := json.Marshal(name)
	if err != nil { // cannot happen for a string
		panic(err)
	}
	return append(line, quoted...)
}

// plainJSON reports whether encoding/json writes s unchanged.
func plainJSON(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ', c >= 0x7f, c == '"', c == '\\', c == '<', c == '>', c == '&':
			return false
		}
	}
	return true
}
