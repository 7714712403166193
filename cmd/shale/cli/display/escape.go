package display

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxSequence limits the length of an incomplete escape sequence that is held back.
const maxSequence = 64

// harmless returns data in a form that is safe for a terminal. It keeps text, colours
// and the characters that progress bars need. Other control characters could change the
// title, the clipboard or earlier output (console_codes(4)), so harmless returns the
// representation that less(1) uses. It holds back the beginning of an incomplete
// sequence.
func (w *written) harmless(data []byte) []byte {
	data = append(w.held, data...)
	w.held = nil
	out := make([]byte, 0, len(data))
	for len(data) > 0 {
		n, safe, complete := next(data)
		if !complete {
			w.held = data
			break
		}
		if safe {
			out = append(out, data[:n]...)
		} else {
			out = append(out, visible(string(data[:n]))...)
		}
		data = data[n:]
	}
	return out
}

// next returns the length of the first character or escape sequence of data. safe
// reports whether a terminal may receive it. complete reports whether data contains all
// of it.
func next(data []byte) (n int, safe, complete bool) {
	switch c := data[0]; {
	case c == 0x1b:
		return sequence(data)
	case c == '\n', c == '\t', c == '\r', c == '\b':
		return 1, true, true
	case c < utf8.RuneSelf:
		return 1, c >= ' ' && c != 0x7f, true
	case !utf8.FullRune(data):
		return 0, false, false
	}
	r, n := utf8.DecodeRune(data)
	return n, !unicode.IsControl(r) && (r != utf8.RuneError || n > 1), true
}

// sequence is next for data that begins with ESC. A sequence is safe if it sets colours
// or erases in its line. Of any other sequence, only the first character is taken.
func sequence(data []byte) (n int, safe, complete bool) {
	for i, c := range data[1:] {
		switch {
		case i == 0 && c == '[', i > 0 && (c >= '0' && c <= '9' || c == ';' || c == ':'):
			continue
		case i > 0 && (c == 'm' || c == 'K'):
			return i + 2, true, true
		}
		return 1, false, true
	}
	return 1, false, len(data) >= maxSequence
}

// visible replaces control characters, except newlines and tabs, with the
// representation that less(1) uses.
func visible(s string) string {
	if !strings.ContainsFunc(s, isHidden) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, "<%02X>", s[i])
		case r < utf8.RuneSelf && isHidden(r):
			b.WriteByte('^')
			b.WriteByte(byte(r) ^ 0x40)
		case isHidden(r):
			fmt.Fprintf(&b, "<U+%04X>", r)
		default:
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

func isHidden(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }
