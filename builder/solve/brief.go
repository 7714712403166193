package solve

import (
	"fmt"
	"strings"
)

// longestWord is how long a word of an error may be, a path most of the time;
// keptStart and keptEnd are what stays of a longer one.
const (
	longestWord = 1024
	keptStart   = 200
	keptEnd     = 100
)

// brief returns err with long paths cut: a step can make one of any length by mkdir
// and chdir, and each function on the way up may add it.
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
