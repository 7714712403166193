package solve

import (
	"fmt"
	"strings"
)

// longestWord is the maximum length in bytes of a path in an error message. A longer path
// is cut to its first keptStart and its last keptEnd bytes.
const (
	longestWord = 1024
	keptStart   = 200
	keptEnd     = 100
)

// brief returns err with long paths in its message cut. A step can create a path of any
// length with mkdir and chdir, and each function on the way up may add the path again.
func brief(err error) error {
	text := err.Error()
	cut := cutWords(text)
	if cut == text {
		return err
	}
	return &briefError{cut, err}
}

type briefError struct {
	text string
	err  error
}

func (e *briefError) Error() string { return e.text }
func (e *briefError) Unwrap() error { return e.err }

func cutWords(s string) string {
	if len(s) <= longestWord {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		n := strings.IndexAny(s, " \t\n")
		if n < 0 {
			n = len(s)
		}
		word := s[:n]
		if n > longestWord && strings.Contains(word, "/") {
			word = fmt.Sprintf("%s[... %d bytes ...]%s", word[:keptStart], n-keptStart-keptEnd, word[n-keptEnd:])
		}
		b.WriteString(strings.ToValidUTF8(word, ""))
		s = s[n:]
		if s != "" {
			b.WriteByte(s[0])
			s = s[1:]
		}
	}
	return b.String()
}
